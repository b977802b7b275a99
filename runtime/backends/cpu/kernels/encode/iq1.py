"""Less than two bits: IQ1_S IQ1_M. The definition: `formats/quants/iq1.py`."""

from __future__ import annotations

from llvmlite import ir

from ...simd.emit import F32, I8, I16, I32, I64, Vec
from .encoder import LANES, Batch, Encoder
from .grids import LEVELS, Points, level
from .iq2 import bytes_of
from .k import merged
from .lanes import for_each_lane
from .lattice import set_costs, small_scales, squares
from .splits import SHIFT, Split, of_groups, of_halves


class IQ1_S(Encoder):
    size, per, block_bytes = 32, 8, 50

    @classmethod
    def encode(cls, b: Batch) -> None:
        e = b.e
        set_costs(b, 2.0, squares)
        split = of_groups(b, 1e-12)
        scale, points = _OnGrid(b, cls, split).run()
        d, scales, kept = small_scales(scale, cls.per, 15, 7)
        bits = b.half(d * 1.125)
        down = e.select(kept & split.is_down[0], e.const(I32, [8] * LANES), e.zero(I32, LANES))
        words = merged([*(point >> 8 << 3 * k for k, point in enumerate(points)), (scales | down) << 12])
        low = bytes_of([point & 255 for point in points])
        for at, group in b.blocks():
            own = range(group, group + cls.per)
            e.store(bits.lane(group), at)
            e.store(low.take(own), at, 2)
            e.store(e.truncate(words.take(own), I16), at, 34)


class IQ1_M(Encoder):
    size, per, block_bytes = 16, 16, 56

    @classmethod
    def encode(cls, b: Batch) -> None:
        e = b.e
        set_costs(b, 2.0, squares)
        split = of_halves(b, 1e-7)
        found = _OnGrid(b, cls, split)
        scale, points = found.run()
        d, scales, kept = small_scales(scale, cls.per, 15, 7)
        by_x, by_level = found.moments_of_block(scales)
        d = e.select(e.less(e.zero(F32, LANES), by_level), by_x / by_level, d)
        bits = e.widen_unsigned(b.half(e.select(kept, d * 1.1125, e.like(d, 0.0))), I32)
        down = [e.widen_unsigned(one & kept, I32) << 3 for one in split.is_down]
        fields = [point >> 8 | one for point, one in zip(points, down, strict=True)]
        four = merged([scales.take(range(k, LANES, 4)) << 3 * k for k in range(4)])
        words = four | ((bits.take(range(4)) >> e.const(I32, [0, 4, 8, 12])) & 15) << 12
        for at, _ in b.blocks():
            e.store(e.truncate(bytes_of([point & 255 for point in points]), I16), at)
            e.store(e.truncate(fields[0] | fields[1] << 4, I8), at, 32)
            e.store(e.truncate(words, I16), at, 48)


class _OnGrid:
    """The levels that a split gives to weights of groups, moved to points of the grid."""

    def __init__(self, b: Batch, kind: type[Encoder], split: Split) -> None:
        self.b, self.e, self.g, self.split = b, b.e, b.g, split
        self.points = Points(b, kind.__name__)
        self.parts = kind.size // self.points.size
        self.codes, self.shifts, self.scale = (b.lines(count) for count in (self.parts, self.parts, 1))

    def run(self) -> tuple[Vec, list[Vec]]:
        """Scales, and the numbers of points; of groups that are not kept the first one, and 0."""
        e, g, split = self.e, self.g, self.split
        self.scale.put(0, split.scale)
        for p in range(self.parts):
            is_down = split.is_down[p * len(split.is_down) // self.parts]
            self.shifts.put(p, e.select(is_down, e.const(F32, [-SHIFT] * LANES), e.const(F32, [SHIFT] * LANES)))

        def part(p: ir.Value, carried: list[Vec]) -> list[Vec]:
            by_x, by_level, off = carried
            lines = self.points.lines(p)
            entries = self.points.entries([split.level(line) for line in lines])
            is_off = e.less(entries, 0)
            self.codes.put(p, entries)
            for_each_lane(e, is_off & split.kept, lambda lane: self._find(p, lane))
            for i, line in enumerate(lines):
                q, w = self._value(p, i), g.cost(line)
                by_x, by_level = by_x + w * q * g.x(line), by_level + w * q * q
            return [by_x, by_level, off | e.widen_unsigned(is_off, I32)]

        zero, nothing = e.zero(F32, LANES), e.zero(I32, LANES)
        by_x, by_level, off = e.loop(ir.Constant(I64, self.parts), [zero, zero, nothing], part)
        anew = e.compare(off, "!=", 0) & e.less(zero, by_x) & e.less(zero, by_level)
        scale = e.select(anew, by_x / by_level, split.scale)
        self.b.must_be_numbers(scale)
        first = e.const(I32, [self.points.layout.first] * LANES)
        for p in range(self.parts):
            self.codes.put(p, e.select(split.kept, self.codes.get(p, I32), first))
        points = [self.points.numbers(self.codes.get(p, I32)) for p in range(self.parts)]
        return e.select(split.kept, scale, zero), points

    def moments_of_block(self, scales: Vec) -> tuple[Vec, Vec]:
        """Sums of cost * weight * x and cost * weight * weight, without a block's scale, for a block of sixteen groups.

        They go through the block from its first weight to the last: these sums have no lanes to be in.
        """
        e, g = self.e, self.g
        factor = e.to_float(scales << 1 | 1)
        terms = [self.b.lines(g.size) for _ in range(2)]

        def part(p: ir.Value, _: list[Vec]) -> list[Vec]:
            for i, line in enumerate(self.points.lines(p)):
                q, w = self._value(p, i) * factor, g.cost(line)
                terms[0].put(line, w * q * g.x(line))
                terms[1].put(line, w * q * q)
            return []

        def group(lane: ir.Value, sums: list[Vec]) -> list[Vec]:
            for j in range(g.size):
                sums = [total + lines.get_lane(j, lane) for total, lines in zip(sums, terms, strict=True)]
            return sums

        e.loop(ir.Constant(I64, self.parts), [], part)
        sums = e.loop(ir.Constant(I64, LANES), [e.scalar(F32, 0.0)] * 2, group)
        return e.splat(sums[0], LANES), e.splat(sums[1], LANES)

    def _value(self, p: ir.Value, i: int) -> Vec:
        """The level of weight i of a part, shifted."""
        return self.e.to_float(level(self.codes.get(p, I32), i)) - 1.0 + self.shifts.get(p)

    def _find(self, p: ir.Value, lane: ir.Value) -> None:
        """The nearest point for the part of one group."""
        e, lines = self.e, self.points.lines(p)
        x, w = ([some.get_lane(line, lane) for line in lines] for some in (self.g.xs, self.g.costs))
        values = e.const(F32, [float(k % LEVELS - 1) for k in range(LANES)]) + self.shifts.get_lane(p, lane)
        scaled = e.splat(self.scale.get_lane(0, lane), LANES) * values
        self.codes.put_lane(p, lane, self.points.nearest(self.codes.get_lane(p, lane, I32), scaled, x, w))
