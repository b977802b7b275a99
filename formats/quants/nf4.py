"""NF4 and FP4 in blocks of 32 to 4096 weights, and with double quantization. Layouts: `formats/gguf/kinds.py`."""

from __future__ import annotations

import numpy as np

from ..gguf.kinds import KINDS, Kind
from .basic import half
from .bits import pack, unpack
from .codec import BlockCodec, BlockImportance, Blocks, Floats
from .four_bit import levels_of, quantize


def run_of(kind: Kind) -> int:
    """Bytes whose low four bits come before their high ones (bits.py)."""
    return min(kind.block // 2, 32)


def _make_codec(kind: Kind) -> None:
    """Register the codec of a kind. An absmax that was quantized is float32 in memory: its code is of no use alone."""
    levels, run = levels_of(kind.codes), run_of(kind)

    class Codec(BlockCodec, ggml=kind.type):
        block = np.dtype([("d", "<f4" if kind.nested else "<f2"), ("qs", "u1", kind.block // 2)])

        @staticmethod
        def decode_blocks(b: Blocks) -> Floats:
            return levels[unpack(b["qs"], 4, run)] * b["d"].astype(np.float32)[:, None]

        @classmethod
        def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
            codes, absmax = quantize(x, kind.codes)
            b = np.empty(len(x), cls.block)
            b["d"] = absmax if kind.nested else half(cls, absmax[:, None])
            b["qs"] = pack(codes, 4, run)
            return b

    Codec.__name__ = Codec.__qualname__ = kind.type.name


for _kind in KINDS.values():
    _make_codec(_kind)
