"""Codebook types: IQ4_NL IQ4_XS. Layouts: `formats/quants/iq.py`."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ...simd.dot import lookup16
from ...simd.emit import Emitter, Vec
from .k import half
from .weights import I8, I16, I32, Block32, Unpacked, WeightType, loads, nibbles

# The sixteen levels, moved up by 128 so that they are unsigned.
_LEVELS = [128 + v for v in (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)]


class IQ4_NL(Block32):
    block_bytes, bits, offset = 18, 8, 128

    @classmethod
    def block_codes(cls, e: Emitter, at: Sequence[ir.Value]) -> Vec:
        return lookup16(e, _LEVELS, nibbles(e, loads(e, at, 2, 16)))


class IQ4_XS(WeightType):
    block_bytes, bits, offset = 136, 8, 128

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        groups = [e.load(I8, 16, at, 8 + 16 * g) for g in range(8)]
        codes = [lookup16(e, _LEVELS, nibbles(e, groups[i : i + 2])) for i in (0, 2, 4, 6)]
        low = e.widen_unsigned(e.load(I8, 4, at, 4), I32)
        interleaved = e.shuffle(low & 15, low >> 4, [0, 4, 1, 5, 2, 6, 3, 7])
        high = e.splat(e.widen_unsigned(e.load(I16, 0, at, 2), I32), 8)
        high = (high >> e.const(I32, range(0, 16, 2))) & 3
        scale = e.to_float((interleaved | (high << 4)) - 32)
        return Unpacked(codes, scale * half(e, at, 0), None)
