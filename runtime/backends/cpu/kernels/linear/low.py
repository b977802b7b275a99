"""One or two bits a weight and one scale: TQ1_0 TQ2_0 Q1_0 Q2_0. Layouts: `formats/quants/low.py`."""

from __future__ import annotations

from llvmlite import ir

from ...simd.emit import I1, I8, I16, I64, Emitter, Vec
from .blocks import LongerBlocks
from .k import BY_BITS, half, shifted, two_bits
from .lanes import in_lanes
from .weights import InLanes, Unpacked, WeightType


def _scales(e: Emitter, kind: type[WeightType], at: ir.Value, count: int) -> Vec:
    """One scale for each 32 columns of blocks whose first field it is."""
    found = [e.load(I16, 0, at, kind.block_bytes * i) for i in range(count)]
    per = kind.block // 32
    return e.half_to_float(e.gather([found[g // per] for g in range(count * per)]))


class TQ2_0(WeightType):
    block_bytes, bits, offset = 66, 2, 1

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        halves = [e.load(I8, 32, at, 32 * h) for h in (0, 1)]
        codes = [two_bits(e, packed, first) for packed in halves for first in (0, 4)]
        return Unpacked(codes, e.splat(half(e, at, 64), 8), None)

    @classmethod
    def in_lanes(cls, e: Emitter, at: ir.Value) -> InLanes:
        packed = e.load(I8, 64, at)
        codes = [shifted(packed, -2 * n) & 3 for n in range(4)]
        return InLanes(in_lanes(codes, BY_BITS), [e.splat(half(e, at, 64), 16)], [])


class TQ1_0(WeightType):
    block_bytes, bits, offset = 54, 2, 1

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        long = [_trit(e.load(I8, 32, at), n) for n in range(5)]
        short = [_trit(e.load(I8, 16, at, 32), n) for n in range(5)]
        last = e.concat([_trit(e.load(I8, 4, at, 48), n) for n in range(4)])
        rest = [e.concat(short[:2]), e.concat(short[2:4]), e.concat([short[4], last])]
        parts = [*long, *rest]  # of 32 columns each
        codes = [e.concat(parts[i : i + 2]) for i in (0, 2, 4, 6)]
        return Unpacked(codes, e.splat(half(e, at, 52), 8), None)


def _trit(packed: Vec, n: int) -> Vec:
    """Digit n to base 3 of a fraction of 256: what three times the rest of it has above 256."""
    e, rest = packed.e, packed * 3**n
    over = [Vec(e, e.b.icmp_unsigned(">=", rest.ll, e.like(rest, first).ll)) for first in (86, 171)]
    return e.widen_unsigned(over[0], I8) + e.widen_unsigned(over[1], I8)


class Q2_0(LongerBlocks):
    block, block_bytes, bits, offset = 64, 18, 2, 1

    @classmethod
    def unpack_blocks(cls, e: Emitter, at: ir.Value, count: int) -> Unpacked:
        codes = []
        for i in range(count):
            packed = e.load(I8, 16, at, 18 * i + 2).take([k // 4 for k in range(64)])
            codes.append((packed >> e.const(I8, [0, 2, 4, 6] * 16)) & 3)
        return Unpacked(codes, _scales(e, cls, at, count), None)


class Q1_0(LongerBlocks):
    block, block_bytes, bits, offset = 128, 18, 2, 1  # codes 0 and 2: minus and plus the scale

    @classmethod
    def unpack_blocks(cls, e: Emitter, at: ir.Value, count: int) -> Unpacked:
        codes = []
        for offset in [18 * i + codes_at for i in range(count) for codes_at in (2, 10)]:
            bits = e.bitcast(e.load(I64, 0, at, offset), I1, 64)
            codes.append(e.select(bits, e.const(I8, [2] * 64), e.zero(I8, 64)))
        return Unpacked(codes, _scales(e, cls, at, count), None)
