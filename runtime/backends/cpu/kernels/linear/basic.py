"""Blocks of 32: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0. Layouts: `formats/quants/basic.py`."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ...simd.emit import I1, Emitter, Vec
from .weights import I8, I16, I32, Block32, loads, nibbles


class Q4_0(Block32):
    block_bytes, bits, offset = 18, 4, 8

    @classmethod
    def block_codes(cls, e: Emitter, at: Sequence[ir.Value]) -> Vec:
        return nibbles(e, loads(e, at, 2, 16))


class _Affine(Block32):
    """A minimum beside the scale: w = d * code + m."""

    @classmethod
    def block_fields(cls, e: Emitter, at: ir.Value) -> list[Vec]:
        return [e.load(I16, 0, at), e.load(I16, 0, at, 2)]

    @classmethod
    def scales(cls, e: Emitter, fields: list[Vec]) -> tuple[Vec, Vec | None]:
        return e.half_to_float(fields[0]), e.half_to_float(fields[1])


class Q4_1(_Affine):
    block_bytes, bits = 20, 4

    @classmethod
    def block_codes(cls, e: Emitter, at: Sequence[ir.Value]) -> Vec:
        return nibbles(e, loads(e, at, 4, 16))


def _fifth_bit(e: Emitter, at: Sequence[ir.Value], offset: int) -> Vec:
    """Bit j of each block's 32-bit word as 16 in byte j."""
    n = 32 * len(at)
    mask = e.bitcast(e.gather([e.load(I32, 0, one, offset) for one in at]), I1, n)
    return e.select(mask, e.const(I8, [16] * n), e.zero(I8, n))


class Q5_0(Block32):
    block_bytes, bits, offset = 22, 5, 16

    @classmethod
    def block_codes(cls, e: Emitter, at: Sequence[ir.Value]) -> Vec:
        return nibbles(e, loads(e, at, 6, 16)) | _fifth_bit(e, at, 2)


class Q5_1(_Affine):
    block_bytes, bits = 24, 5

    @classmethod
    def block_codes(cls, e: Emitter, at: Sequence[ir.Value]) -> Vec:
        return nibbles(e, loads(e, at, 8, 16)) | _fifth_bit(e, at, 4)


class Q8_0(Block32):
    block_bytes, bits, offset = 34, 8, 128

    @classmethod
    def block_codes(cls, e: Emitter, at: Sequence[ir.Value]) -> Vec:
        return e.concat(loads(e, at, 2, 32)) ^ 0x80
