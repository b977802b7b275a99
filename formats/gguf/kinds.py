"""The kinds of tensors that a container adds to GGUF: bitsandbytes' four bits, as bytes that any reader can carry.

No GGUF program knows a type for them, and a type id of our own would make all others refuse the whole file. So such a
tensor is stored as I8 under its own name, and keys say what its bytes are:

    halfbyte.container.version     1
    halfbyte.quant.names, .kinds   which tensors, and what each of them is: "nf4.64", "nf4dq.64.256", "fp4.128", ...
    halfbyte.quant.rows, .cols     their logical shapes
    halfbyte.nf4.codebook, .layout what the sixteen codes stand for, how absmax and codes follow each other; or .fp4.
    halfbyte.nested.codebook       what the 256 codes of absmaxes stand for, where there are any

A row is stored block by block: the absmax (float16, or a code of one byte), then the codes, split in halves of 64
weights (of 32 in blocks of 32): byte j holds code j in its low four bits and code j + 32 in the others. With codes for
absmaxes, a float32 tensor NAME.nf4_nested (or .fp4_nested) has the offset and then the absmax of each 256 absmaxes.
"""

from __future__ import annotations

from dataclasses import dataclass

from .types import BLOCK_SIZES, GGMLType

VERSION = 1
LAYOUT = "f16absmax+split64"
NESTED_SIZE = 256  # absmaxes that share an absmax

VERSION_KEY = "halfbyte.container.version"
NAMES_KEY, KINDS_KEY = "halfbyte.quant.names", "halfbyte.quant.kinds"
ROWS_KEY, COLS_KEY = "halfbyte.quant.rows", "halfbyte.quant.cols"
SOURCE_KEY = "halfbyte.quant.source"
NESTED_KEY = "halfbyte.nested.codebook"
INT8_KEY = "halfbyte.int8.rows"  # names of Q8_0 tensors with one scale a row
PREFIX = "halfbyte."
TOKENIZER = "halfbyte.tokenizer."  # begins keys about texts, which stay true whatever becomes of tensors

# What codes stand for, as float32: quantiles of a normal distribution, and two bits of exponent and one of mantissa.
CODEBOOKS: dict[str, tuple[float, ...]] = {
    "nf4": (
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
        0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ),
    "fp4": tuple(
        sign * twelfths / 12 for sign in (1, -1) for twelfths in (0, 0.0625, 8, 12, 4, 6, 2, 3)
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One kind: its codes ("nf4" or "fp4"), weights in a block, and whether absmaxes are quantized too ("dq")."""

    type: GGMLType
    codes: str
    block: int
    nested: bool

    @property
    def text(self) -> str:
        """As files say it."""
        return f"{self.codes}dq.{self.block}.{NESTED_SIZE}" if self.nested else f"{self.codes}.{self.block}"

    def stored_row_bytes(self, cols: int) -> int:
        """Bytes of a row of `cols` weights, a multiple of the block."""
        return cols // self.block * ((1 if self.nested else 2) + self.block // 2)

    def nested_size(self, weights: int) -> int:
        """Numbers in the companion tensor of so many weights."""
        return 1 + -(-(weights // self.block) // NESTED_SIZE)

    def nested_name(self, name: str) -> str:
        """The companion tensor of a tensor."""
        return f"{name}.{self.codes}_nested"


def _all_kinds() -> dict[GGMLType, Kind]:
    firsts = {
        ("nf4", False): GGMLType.NF4_32, ("nf4", True): GGMLType.NF4_DQ_32,
        ("fp4", False): GGMLType.FP4_32, ("fp4", True): GGMLType.FP4_DQ_32,
    }  # fmt: skip
    found = {}
    for (codes, nested), first in firsts.items():
        for i, size in enumerate(BLOCK_SIZES):
            type_ = GGMLType(first + i)
            found[type_] = Kind(type_, codes, size, nested)
    return found


KINDS = _all_kinds()
BY_TEXT = {kind.text: kind for kind in KINDS.values()}


def codebook_key(codes: str) -> str:
    return f"halfbyte.{codes}.codebook"


def layout_key(codes: str) -> str:
    return f"halfbyte.{codes}.layout"


def reversible_key(codes: str) -> str:
    """Names of Q8_0 tensors that are made of these codes, and can be turned back (quants/reversible.py)."""
    return f"halfbyte.{codes}.reversible"
