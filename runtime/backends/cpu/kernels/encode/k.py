"""Super-blocks of 256: Q2_K Q3_K Q4_K Q5_K Q6_K; Q8_K. The definition: `formats/quants/k.py`."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ...simd.emit import F32, I8, I16, I32, Emitter, Vec
from .encoder import LANES, Batch, Encoder
from .lanes import Groups, Index, byte_rows, for_groups, lines_of
from .search import (
    NOTHING,
    Codes,
    affine,
    nearest,
    positive,
    reciprocal,
    signed_extreme,
    symmetric,
    symmetric_by_turns,
)  # fmt: skip

WEIGHTED_TRIES = (-0.9, 0.05, 36)


class Q2_K(Encoder):
    size, per, block_bytes, power_of = 16, 16, 84, "block"

    @classmethod
    def encode(cls, b: Batch) -> None:
        e, g = b.e, b.g
        if b.weighted:
            b.weigh()
            scale, minimum, found = affine(g, 3, WEIGHTED_TRIES)
            (d, scales), (dmin, minima) = (_positive(b, v, 15) for v in (scale, minimum))
        else:
            g.set_costs(lambda x, _: e.absolute(x))
            scale, minimum, found = affine(g, 3, (-0.5, 0.1, 15), by_magnitude=True)
            (d, scales), (dmin, minima) = (_largest_is(15, v, cls.per) for v in (scale, minimum))
        d, dmin = b.half(d), b.half(dmin)
        both = (scales | minima << 4) & 255
        m = e.half_to_float(dmin) * e.to_float(both >> 4)
        codes = _codes(g, e.half_to_float(d) * e.to_float(both & 15), found, 0, 3, m)
        rows = wide(byte_rows([codes(j) for j in range(16)]))
        for at, group in b.blocks():
            e.store(_bytes(both), at)
            store_two_bits(rows, at, 16)
            e.store(d.lane(group), at, 80)
            e.store(dmin.lane(group), at, 82)


class Q3_K(Encoder):
    size, per, block_bytes, power_of, factor = 16, 16, 110, "block", 2.0

    @classmethod
    def encode(cls, b: Batch) -> None:
        e, g = b.e, b.g
        if b.weighted:
            b.weigh()
            scale, found = symmetric(g, 4)
            b.must_be_numbers(scale)
            inner = _of_blocks(b, scale)
            d, codes = symmetric(inner, 32)
            d, six = for_groups(d, cls.per), _for_groups(codes, cls.per)
        else:
            g.set_costs(lambda x, _: x * x)
            scale, found = symmetric_by_turns(g, 4)
            b.must_be_numbers(scale)
            d, six = _signed_scales(scale, 32, cls.per)
        d = b.half(d)
        final = _codes(g, e.half_to_float(d) * e.to_float(six - 32), found, -4, 3)
        rows = wide(byte_rows([final(j) for j in range(16)]))
        low, high = six & 15, six >> 4
        for at, group in b.blocks():
            e.store(merged([(row >> 2) << k for k, row in enumerate(rows)]), at)
            store_two_bits([row & 3 for row in rows], at, 32)
            e.store(_bytes(low.take(range(8)) | low.take(range(8, 16)) << 4), at, 96)
            e.store(_bytes(merged([high.take(range(4 * k, 4 * k + 4)) << 2 * k for k in range(4)])), at, 104)
            e.store(d.lane(group), at, 108)


class _SixBits(Encoder):
    """Q4_K and Q5_K."""

    per, power_of, factor = 8, "block", 2.0
    levels = 15
    tries = (-1.0, 0.1, 20)
    codes_at = 16

    @classmethod
    def encode(cls, b: Batch) -> None:
        e, g = b.e, b.g
        if b.weighted:
            b.weigh()
            scale, minimum, found = affine(g, cls.levels, WEIGHTED_TRIES)
            (d, scales), (dmin, minima) = (_positive(b, v, 63) for v in (scale, minimum))
        else:
            power = g.sums(1, lambda j: [g.x(j) * g.x(j)])[0] / 32.0
            root = e.call(f"llvm.sqrt.v{LANES}f32", power.ll.type, power)
            g.set_costs(lambda x, _: root + e.absolute(x))
            scale, minimum, found = affine(g, cls.levels, cls.tries)
            (d, scales), (dmin, minima) = (_largest_is(63, v, cls.per) for v in (scale, minimum))
        d, dmin = b.half(d), b.half(dmin)
        scales, minima = (cls.six_bits(v & 255, b.weighted) for v in (scales, minima))
        m = e.half_to_float(dmin) * e.to_float(minima)
        codes = _codes(g, e.half_to_float(d) * e.to_float(scales), found, 0, cls.levels, m)
        rows = byte_rows([codes(j) for j in range(32)])
        for at, group in b.blocks():
            e.store(d.lane(group), at)
            e.store(dmin.lane(group), at, 2)
            own = range(group, group + cls.per)
            e.store(_packed_pairs(scales.take(own), minima.take(own)), at, 4)
            cls.store_codes([rows[k] for k in own], at)

    @classmethod
    def six_bits(cls, scales: Vec, weighted: bool) -> Vec:
        """What is stored of scales that are bytes."""
        return scales.e.limited(scales, 0, 63)

    @classmethod
    def store_codes(cls, rows: list[Vec], at: ir.Value) -> None:
        for i in range(4):
            rows[0].e.store((rows[2 * i] & 15) | (rows[2 * i + 1] & 15) << 4, at, cls.codes_at + 32 * i)


class Q4_K(_SixBits):
    block_bytes = 144

    @classmethod
    def six_bits(cls, scales: Vec, weighted: bool) -> Vec:
        """With an importance one below zero, a byte of almost 256, runs into the bits of another, as in ggml."""
        if not weighted:
            return super().six_bits(scales, weighted)
        e, earlier = scales.e, scales.take([k & ~4 for k in range(LANES)])
        above = ((earlier >> 6) | (scales >> 4)) & 3  # which the last four have in the bytes of the first four
        is_last = e.const(I32, [k >> 2 & 1 for k in range(LANES)])
        return e.select(e.compare(is_last, "==", 1), (scales & 15) | above << 4, scales & 63)


class Q5_K(_SixBits):
    block_bytes, levels, tries, codes_at = 176, 31, (-0.5, 0.1, 15), 48

    @classmethod
    def store_codes(cls, rows: list[Vec], at: ir.Value) -> None:
        super().store_codes(rows, at)
        rows[0].e.store(merged([(row >> 4) << k for k, row in enumerate(rows)]), at, 16)


class Q6_K(Encoder):
    size, per, block_bytes = 16, 16, 210

    @classmethod
    def encode(cls, b: Batch) -> None:
        e, g = b.e, b.g
        if not b.weighted:
            g.set_costs(lambda x, _: x * x)
        scale, found = symmetric(g, 32)
        b.must_be_numbers(scale)
        d, eight = _signed_scales(scale, 128, cls.per)
        is_kept = e.compare(highest(e.absolute(scale), cls.per), ">=", NOTHING)
        d = b.half(e.select(is_kept, d, e.like(d, 0.0)))
        scales = e.select(is_kept, eight - 128, e.like(eight, 0))
        codes = _codes(g, e.half_to_float(d) * e.to_float(scales), found, -32, 31)
        lines = [e.select(is_kept, codes(j), e.like(eight, 0)) for j in range(16)]
        rows = wide(byte_rows(lines))
        for at, group in b.blocks():
            for h in (0, 1):
                four = rows[4 * h : 4 * h + 4]
                for k in (0, 1):
                    e.store((four[k] & 15) | (four[k + 2] & 15) << 4, at, 64 * h + 32 * k)
                e.store(merged([(row >> 4) << 2 * k for k, row in enumerate(four)]), at, 128 + 32 * h)
            e.store(_bytes(scales), at, 192)
            e.store(d.lane(group), at, 208)


class Q8_K(Encoder):
    size, per, block_bytes = 16, 16, 292

    @classmethod
    def encode(cls, b: Batch) -> None:
        e, g = b.e, b.g
        inverse = reciprocal(signed_largest(signed_extreme(g), cls.per), times=-127.0)
        codes = [e.limited(nearest(inverse * g.x(j)), -128, 127) for j in range(16)]
        rows = byte_rows([code & 255 for code in codes])
        for at, group in b.blocks():
            e.store(reciprocal(inverse).lane(group), at)
            for k, row in enumerate(rows):
                e.store(row, at, 4 + 16 * k)
            e.store(e.truncate(sum(codes[1:], codes[0]), I16), at, 260)


def highest(v: Vec, per: int) -> Vec:
    """The largest value of each block's groups, in all their lanes."""
    distance = per // 2
    while distance:
        v = v.e.maximum(v, v.take([k ^ distance for k in range(LANES)]))
        distance //= 2
    return v


def _largest_is(levels: int, v: Vec, per: int) -> tuple[Vec, Vec]:
    e = v.e
    most = e.maximum(highest(v, per), 0.0)
    inverse = e.select(e.less(e.like(most, 0.0), most), e.like(most, float(levels)) / most, e.like(most, 0.0))
    return most / float(levels), nearest(inverse * v)


def signed_largest(v: Vec, per: int) -> Vec:
    """The value of largest magnitude of each block's groups, the first of several, in all their lanes."""
    e = v.e
    most = extreme = e.zero(F32, LANES)
    for j in range(per):
        one = v.take([k // per * per + j for k in range(LANES)])
        is_larger = e.less(most, e.absolute(one))
        most, extreme = e.select(is_larger, e.absolute(one), most), e.select(is_larger, one, extreme)
    return extreme


def _signed_scales(v: Vec, levels: int, per: int) -> tuple[Vec, Vec]:
    e, extreme = v.e, signed_largest(v, per)
    inverse = e.like(v, float(-levels)) / extreme
    codes = e.limited(nearest(inverse * v), -levels, levels - 1) + levels
    is_zero = e.compare(extreme, "==", 0.0)
    return e.select(is_zero, e.like(v, 0.0), e.like(v, 1.0) / inverse), e.select(is_zero, e.like(codes, 0), codes)


def _of_blocks(b: Batch, v: Vec) -> Groups:
    """Scales of groups as groups of their own, one a block. An error costs as much as those of its weights together."""
    per = b.per
    inner = b.groups(per)
    costs = b.g.sums(1, lambda j: [b.g.cost(j)])[0]
    for j, (line, cost) in enumerate(zip(lines_of(v, per), lines_of(costs, per), strict=True)):
        inner.put_x(j, line)
        inner.put_cost(j, cost)
    return inner


def _positive(b: Batch, v: Vec, levels: int) -> tuple[Vec, Vec]:
    d, codes = positive(_of_blocks(b, v), levels)
    return for_groups(d, b.per), _for_groups(codes, b.per)


def _for_groups(codes: Codes, per: int) -> Vec:
    """Codes of groups that were lines of their blocks, in the lanes of the groups."""
    lines = [codes(j) for j in range(per)]
    return lines[0].e.gather([lines[k % per].lane(k // per) for k in range(LANES)])


def _codes(g: Groups, d: Vec, found: Codes, low: int, high: int, m: Vec | None = None) -> Codes:
    e, is_zero = g.e, g.e.compare(d, "==", 0.0)

    def code(j: Index) -> Vec:
        x = g.x(j) if m is None else g.x(j) + m
        return e.select(is_zero, found(j), e.limited(nearest(x / d), low, high) - low)

    return code


def _bytes(values: Vec) -> Vec:
    return values.e.truncate(values, I8)


def merged(parts: Sequence[Vec]) -> Vec:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole | part
    return whole


def wide(rows: Sequence[Vec]) -> list[Vec]:
    """Rows of two groups of 16 as one of 32 bytes."""
    return [rows[0].e.concat([a, b]) for a, b in zip(rows[::2], rows[1::2], strict=True)]


def store_two_bits(rows: Sequence[Vec], at: ir.Value, offset: int) -> None:
    for h in (0, 1):
        rows[0].e.store(merged([row << 2 * k for k, row in enumerate(rows[4 * h : 4 * h + 4])]), at, offset + 32 * h)


def _packed_pairs(scales: Vec, minima: Vec) -> Vec:
    """Twelve bytes: see `packed_pairs` in formats/quants/k.py."""
    first, last = range(4), range(4, 8)
    upper = [v.take(first) | (v.take(last) >> 4) << 6 for v in (scales, minima)]
    shared = (scales.take(last) & 15) | (minima.take(last) & 15) << 4
    e: Emitter = scales.e
    return _bytes(e.concat([*upper, shared, shared])).take(range(12))
