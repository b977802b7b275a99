"""Codebook types: IQ4_NL IQ4_XS. Layouts: `formats/quants/iq.py`."""

from __future__ import annotations

from llvmlite import ir

from ......formats.quants.iq import IQ4_LEVELS
from ...simd.dot import lookup16
from ...simd.emit import I64, Emitter, Vec
from .blocks import Nibbles
from .k import half
from .lanes import spread
from .weights import I8, I16, I32, InLanes, Unpacked, WeightType, halves, nibbles

# The sixteen levels, moved up by 128 so that they are unsigned.
_LEVELS = [128 + int(level) for level in IQ4_LEVELS]


class IQ4_NL(Nibbles):
    block_bytes, bits, offset, levels = 18, 8, 128, _LEVELS


class IQ4_XS(WeightType):
    block_bytes, bits, offset = 136, 8, 128

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        groups = [e.load(I8, 16, at, 8 + 16 * g) for g in range(8)]
        codes = [lookup16(e, _LEVELS, nibbles(e, groups[i : i + 2])) for i in (0, 2, 4, 6)]
        return Unpacked(codes, cls._scale(e, at), None)

    @classmethod
    def in_lanes(cls, e: Emitter, at: ir.Value) -> InLanes:
        """As in blocks of 32, but the bytes of all groups are one run."""
        words = [e.load(I64, 8, at, 8 + 64 * i) for i in (0, 1)]
        runs = [e.bitcast(e.shuffle(*words, range(odd, 16, 2)), I8, 64) for odd in (0, 1)]
        (a, c), (b, d) = (halves(e, run) for run in runs)
        codes = [lookup16(e, _LEVELS, vector) for vector in (a, b, c, d)]
        return InLanes(codes, spread(cls._scale(e, at)), [])

    @classmethod
    def _scale(cls, e: Emitter, at: ir.Value) -> Vec:
        low = e.widen_unsigned(e.load(I8, 4, at, 4), I32)
        interleaved = e.shuffle(low & 15, low >> 4, [0, 4, 1, 5, 2, 6, 3, 7])
        high = e.splat(e.widen_unsigned(e.load(I16, 0, at, 2), I32), 8)
        high = (high >> e.const(I32, range(0, 16, 2))) & 3
        scale = e.to_float((interleaved | (high << 4)) - 32)
        return scale * half(e, at, 0)
