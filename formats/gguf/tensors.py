"""Tensor descriptions, the rules they obey, and zero-copy access to their bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedError
from .errors import GGUFError, TensorBlockError, TensorShapeError, TensorTypeError
from .limits import MAX_DIMS, MAX_INT64
from .source import Source
from .types import GGMLType

# Where the multi-byte numbers of a block lie, (offset, width): these are reversed in big-endian files. What is a number
# follows from ggml's C code, which reads and writes blocks in the machine's own order: `qh` of Q5_0 and Q5_1, declared
# as four bytes, is one, because it is only ever copied from and to a uint32; the packed scales of Q3_K, Q4_K and Q5_K
# are bytes, because what is done to four of them at once never crosses a byte. Of each pair of words of IQ2_XXS,
# declared as four 16-bit numbers, the decoder takes the first apart byte by byte and shifts the second. ggml's own
# converter (gguf_convert_endian.py) knows Q4_0, Q8_0, Q4_K, Q6_K, MXFP4 and NVFP4, and agrees.
SWAPPED: dict[GGMLType, tuple[tuple[int, int], ...]] = {
    GGMLType.F32: ((0, 4),),
    GGMLType.F16: ((0, 2),),
    GGMLType.BF16: ((0, 2),),
    GGMLType.F64: ((0, 8),),
    GGMLType.I8: (),
    GGMLType.I16: ((0, 2),),
    GGMLType.I32: ((0, 4),),
    GGMLType.I64: ((0, 8),),
    GGMLType.Q4_0: ((0, 2),),
    GGMLType.Q4_1: ((0, 2), (2, 2)),
    GGMLType.Q5_0: ((0, 2), (2, 4)),
    GGMLType.Q5_1: ((0, 2), (2, 2), (4, 4)),
    GGMLType.Q8_0: ((0, 2),),
    GGMLType.Q2_K: ((80, 2), (82, 2)),
    GGMLType.Q3_K: ((108, 2),),
    GGMLType.Q4_K: ((0, 2), (2, 2)),
    GGMLType.Q5_K: ((0, 2), (2, 2)),
    GGMLType.Q6_K: ((208, 2),),
    GGMLType.IQ4_NL: ((0, 2),),
    GGMLType.IQ4_XS: ((0, 2), (2, 2)),
    GGMLType.IQ2_XXS: ((0, 2), *((6 + 8 * i, 4) for i in range(8))),
    GGMLType.IQ2_XS: ((0, 2), *((2 + 2 * i, 2) for i in range(32))),
    GGMLType.IQ2_S: ((0, 2),),
    GGMLType.IQ3_XXS: ((0, 2), *((66 + 4 * i, 4) for i in range(8))),
    GGMLType.IQ3_S: ((0, 2),),
    GGMLType.IQ1_S: ((0, 2), *((34 + 2 * i, 2) for i in range(8))),
    GGMLType.IQ1_M: tuple((48 + 2 * i, 2) for i in range(4)),
    GGMLType.MXFP4: (),
    GGMLType.NVFP4: (),
    GGMLType.TQ1_0: ((52, 2),),
    GGMLType.TQ2_0: ((64, 2),),
    GGMLType.Q1_0: ((0, 2),),
    GGMLType.Q2_0: ((0, 2),),
    GGMLType.Q8_1: ((0, 2), (2, 2)),
    GGMLType.Q8_K: ((0, 4), *((260 + 2 * i, 2) for i in range(16))),
}
_TYPES = {int(t): t for t in GGMLType if t.on_disk}
_REMOVED = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}


class RowReader(Protocol):
    """Rows of bytes that are read when they are sliced."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """One tensor of a file.

    `ne` is in file order: ne[0] is the row length in elements, a multiple of the type's block. `offset` counts bytes
    from the start of the file that holds the tensor. A tensor without dimensions reads as one element, ne = (1,).
    """

    name: str
    type: GGMLType
    ne: tuple[int, ...]
    offset: int
    n_bytes: int
    byte_order: str
    _source: Source = field(repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """NumPy order: the reverse of `ne`, rows last."""
        return self.ne[::-1]

    @property
    def n_elements(self) -> int:
        return math.prod(self.ne)

    @property
    def row_bytes(self) -> int:
        return self.type.row_bytes(self.ne[0])

    @property
    def made_of(self) -> GGMLType | None:
        """The type whose codes these weights are said to be, where there is one that takes less (container.py)."""
        return None

    @property
    def path(self) -> str:
        """The file that holds the bytes: a shard, where the model is split."""
        return str(self._source.path)

    @property
    def data(self) -> NDArray[np.uint8]:
        """Read-only bytes, uint8[*shape[:-1], row_bytes], in little-endian layout.

        A view of the mapped file; only tensors of big-endian files are copied, in order to swap them.
        Raises UnsupportedError for types whose big-endian layout is not defined.
        """
        raw = self._source.array[self.offset : self.offset + self.n_bytes]
        if self.byte_order == ">":
            raw = self._swapped(raw)
        raw.flags.writeable = False
        return raw.reshape(*self.shape[:-1], self.row_bytes)

    @property
    def rows(self) -> RowReader:
        """The rows of `data`, counted through all leading dimensions: uint8[n, row_bytes] when it is sliced."""
        return self.data.reshape(-1, self.row_bytes)

    def forget(self, start: int = 0, stop: int | None = None) -> None:
        """Give back the memory that reading `data` took, or some of its bytes. They can be read again."""
        self._source.forget(self.offset + start, self.offset + (self.n_bytes if stop is None else stop))

    def _swapped(self, raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        order = swap_order(self.type, f"{self.path}: tensor {self.name!r}")
        return raw.reshape(-1, order.size)[:, order].reshape(-1)


def swap_order(type_: GGMLType, what: str) -> NDArray[np.intp]:
    """The order in which a block's bytes are taken to change its byte order, intp[block_bytes]; its own inverse."""
    if type_ not in SWAPPED:
        raise UnsupportedError(
            f"{what}: the layout of {type_.name} in big-endian files is not defined; "
            "use a little-endian copy of the model"
        )
    order = np.arange(type_.block_bytes)
    for start, width in SWAPPED[type_]:
        order[start : start + width] = order[start : start + width][::-1]
    return order


# Builds the error for a broken rule: (class, problem, field suffix, value, what is allowed).
Complain = Callable[[type[GGUFError], str, str, object, str | None], GGUFError]


def check_type(number: int, complain: Complain) -> GGMLType:
    """The tensor type with this id."""
    if number in _TYPES:
        return _TYPES[number]
    if number in _REMOVED:
        problem = f"tensor type {_REMOVED[number]} was removed from GGUF; download or convert the model again"
        raise complain(TensorTypeError, problem, "type", number, None)
    raise complain(TensorTypeError, "unknown tensor type", "type", number, f"0 to {max(_TYPES)}, without removed ids")


def check_dims(n_dims: int, complain: Complain) -> None:
    """A tensor has up to 4 dimensions; with none it is one element, as in llama.cpp."""
    if n_dims > MAX_DIMS:
        raise complain(TensorShapeError, "too many dimensions", "n_dims", n_dims, f"0 to {MAX_DIMS}")


def check_shape(ne: Sequence[int], complain: Complain) -> None:
    """Rules that hold for every type. Zero dimensions are legal and make an empty tensor."""
    check_dims(len(ne), complain)
    for i, n in enumerate(ne):
        if not 0 <= n <= MAX_INT64:
            signed = n - (1 << 64) if n > MAX_INT64 else n
            raise complain(TensorShapeError, "not a dimension", f"ne[{i}]", signed, "0 to 2**63 - 1")
    # A zero must not hide an overflow of the others: strides are made of the others.
    if math.prod(n for n in ne if n) > MAX_INT64:
        raise complain(TensorShapeError, "too many elements", "ne", tuple(ne), "a product below 2**63")


def check_size(ne: Sequence[int], type_: GGMLType, complain: Complain) -> int:
    """Bytes of a tensor that passed `check_shape`."""
    row = ne[0] if ne else 1
    if row % type_.block_size:
        allowed = f"a multiple of {type_.block_size} for {type_.name}"
        raise complain(TensorBlockError, "row length does not fit the type", "ne[0]", row, allowed)
    others = math.prod(n for n in ne[1:] if n)
    if max(type_.row_bytes(row), type_.block_bytes) * others > MAX_INT64:
        raise complain(TensorShapeError, "too many bytes", "ne", tuple(ne), "a size below 2**63")
    return type_.row_bytes(row) * math.prod(ne[1:])


def pad(n: int, alignment: int) -> int:
    """`n` rounded up to a multiple of `alignment`."""
    return -(-n // alignment) * alignment
