"""Scales of groups whose magnitudes are rounded to a grid. The definition: `formats/quants/lattice.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from llvmlite import ir

from ......formats.quants.lattice import Search
from ...simd.emit import F32, I32, I64, Vec
from .encoder import LANES, Batch, Encoder
from .grids import LEVELS, Points, level
from .k import highest
from .lanes import Groups, block_means, for_each_lane
from .search import nearest, negated

_TOO_MUCH = 1e36  # of errors' costs, where NumPy is asked whether it is


class Fitted(NamedTuple):
    """Scales, float32 [16], from zero on; numbers of points, for each part of a group; signs, for each 8 weights."""

    scale: Vec
    points: list[Vec]
    signs: list[Vec]

    def only(self, kept: Vec) -> Fitted:
        """Groups that are not kept become zero."""
        points, signs = ([kept.e.select(kept, one, one.e.like(one, 0)) for one in some] for some in self[1:])
        return Fitted(kept.e.select(kept, self.scale, kept.e.like(self.scale, 0.0)), points, signs)


class Lattice(Encoder):
    """A type whose scales are searched as `search` says."""

    search: ClassVar[Search]

    @classmethod
    def fit(cls, b: Batch, signs: Sequence[Vec], scale: Vec, most: Vec, kept: Vec) -> Fitted:
        """From a first scale on, with tries of scales that make `most` the top level. Other groups are zero."""
        e, zero = b.e, b.e.zero(F32, LANES)
        scale, points = _Fit(b, cls).run(scale, most)
        turned = e.less(scale, zero)
        signs = [e.select(turned, bits ^ int(cls.search.stored), bits) for bits in signs]
        b.must_be_numbers(scale)
        return Fitted(e.absolute(scale), points, signs).only(kept)

    @classmethod
    def fit_largest(cls, b: Batch) -> Fitted:
        """From a scale on that makes the largest magnitude the top level."""
        signs = magnitudes(b.g, cls.search)
        most = largest(b.g)
        kept = b.e.compare(most, ">=", cls.search.least)
        return cls.fit(b, signs, most / float(cls.search.top), most, kept)


def set_costs(b: Batch, factor: float, plain: Callable[[Vec, Vec], Vec]) -> None:
    """What an error of each weight costs; `plain` gives it where there is no importance, of weights and power."""
    e, g = b.e, b.g
    b.power = power = block_means(e, b.x, b.per, g.size, lambda one: one * one, factor)
    if b.weighted:
        b.weigh()
    else:
        g.set_costs(lambda x, _: plain(x, power))
    costs = g.sums(1, lambda j: [g.cost(j) * e.absolute(g.x(j))])[0]
    b.is_bad = b.is_bad | (e.less(costs, _TOO_MUCH) ^ 1)


def squares(x: Vec, _: Vec) -> Vec:
    return x * x


def largest(g: Groups) -> Vec:
    """The largest weight of each group, or 0."""
    return g.each([g.x(0)], lambda j, most: [g.e.maximum(g.x(j), most[0])])[0]


def small_scales(scale: Vec, per: int, steps: int, most_code: int) -> tuple[Vec, Vec, Vec]:
    """A scale of each block, codes of those of its groups, and whether it is not zero: all in the lanes of groups."""
    e, most = scale.e, highest(scale, per)
    kept = e.compare(most, "!=", 0.0)
    d = most / float(steps)
    codes = e.limited(nearest((e.like(d, 1.0) / d * scale - 1.0) * 0.5), 0, most_code)
    return d, e.select(kept, codes, e.zero(I32, LANES)), kept


def magnitudes(g: Groups, search: Search) -> list[Vec]:
    """Weights become magnitudes. Their signs, a bit each: int32 [16] for each 8 weights."""
    return [_without_signs(g, first, search) for first in range(0, g.size, 8)]


def _without_signs(g: Groups, first: int, search: Search) -> Vec:
    e, x = g.e, [g.x(first + k) for k in range(8)]
    negative = [e.less(one, 0.0) for one in x]
    turned = None if search.has_all_signs else _turned(g, first, x, negative)
    signs = e.zero(I32, LANES)
    for k, (one, sign) in enumerate(zip(x, negative, strict=True)):
        magnitude = e.select(sign, negated(one), one)
        if turned is not None:
            magnitude, sign = e.select(turned[k], negated(magnitude), magnitude), sign ^ turned[k]
        g.put_x(first + k, magnitude)
        signs = signs | e.widen_unsigned(sign, I32) << k
    return signs & int(search.stored)


def _turned(g: Groups, first: int, x: list[Vec], negative: list[Vec]) -> list[Vec]:
    """Which of 8 weights gets the other sign: where the number of minus signs is odd, that which matters least."""
    e, odd, nth = g.e, negative[0], g.e.zero(I32, LANES)
    least = g.cost(first) * x[0] * x[0]
    for k in range(1, 8):
        term = g.cost(first + k) * x[k] * x[k]
        less = e.less(term, least)
        least, nth, odd = e.select(less, term, least), e.select(less, e.like(nth, k), nth), odd ^ negative[k]
    return [odd & e.compare(nth, "==", k) for k in range(8)]


class _Fit:
    """The search. Groups are cut into parts of as many weights as a point has coordinates."""

    def __init__(self, b: Batch, kind: type[Lattice]) -> None:
        self.b, self.e, self.g, self.search = b, b.e, b.g, kind.search
        self.points = Points(b, kind.__name__)
        self.parts = kind.size // self.points.size
        # Square roots of costs; codes that are tried, and the best ones, a line for each part; the scale that is tried.
        self.roots, self.tried, self.best = (b.lines(count) for count in (kind.size, self.parts, self.parts))
        self.scale = b.lines(1)

    def run(self, scale: Vec, most: Vec) -> tuple[Vec, list[Vec]]:
        """Scales, and the numbers of points."""
        e, search = self.e, self.search
        zero = e.zero(F32, LANES)
        self._begin()

        def one_try(i: ir.Value, carried: list[Vec]) -> list[Vec]:
            scale, score, off = carried
            step = e.to_float(e.splat(Vec(e, e.b.trunc(i, I32)), LANES)) - float(search.tries)
            inverse = (step * search.step + float(search.top)) / most
            by_x, by_level, now_off = self._round(inverse, e.like(inverse, 1.0) / inverse)
            better = e.less(zero, by_level) & e.less(score * by_level, by_x * by_x)
            e.when(e.any(better), [], lambda _: self._keep(better))
            scale = e.select(better, by_x / by_level, scale)
            return [scale, e.select(better, scale * by_x, score), e.select(better, now_off, off)]

        nothing, all_parts = e.zero(I32, LANES), e.const(I32, [(1 << self.parts) - 1] * LANES)
        off = all_parts if search.again == "any" else nothing
        tries = ir.Constant(I64, 2 * search.tries + 1)
        scale, _, off = e.loop(tries, [scale, zero, off], one_try)
        again = {
            "off": off,
            "any": e.select(e.compare(off, "!=", 0), all_parts, nothing),
            "all": all_parts,
        }[search.again]
        again = e.select(e.less(zero, scale), again, nothing)
        by_x, by_level, _ = self._round(e.like(scale, 1.0) / scale, scale, again)
        scale = e.select(e.compare(again, "!=", 0) & e.less(zero, by_level), by_x / by_level, scale)
        return scale, [self.points.numbers(self.best.get(p, I32)) for p in range(self.parts)]

    def _begin(self) -> None:
        """Square roots of costs, and the first point for all parts."""
        e, g = self.e, self.g

        def root(j: ir.Value, _: list[Vec]) -> list[Vec]:
            self.roots.put(j, e.call(f"llvm.sqrt.v{LANES}f32", g.cost(j).ll.type, g.cost(j)))
            return []

        g.each([], root)
        for p in range(self.parts):
            self.best.put(p, e.const(I32, [self.points.layout.first] * LANES))

    def _round(self, inverse: Vec, scale: Vec, only: Vec | None = None) -> list[Vec]:
        """Codes for a scale, into lines: of sums that tell how good they are, and a bit for each part off the grid.

        The sums are those of cost * x * level and of cost * level * level. `only`: the parts, a bit each, that get a
        new code, which is kept; the others keep the best that was found before.
        """
        e, g = self.e, self.g
        self.scale.put(0, scale)

        def part(p: ir.Value, carried: list[Vec]) -> list[Vec]:
            by_x, by_level, off = carried
            lines = self.points.lines(p)
            bit = e.splat(e.scalar(I32, 1) << Vec(e, e.b.trunc(p, I32)), LANES)
            entries = self.points.entries([self._level(inverse * g.x(line)) for line in lines])
            is_off = e.less(entries, 0)
            chosen = None if only is None else e.compare(only & bit, "!=", 0)
            self.tried.put(p, entries)
            for_each_lane(e, is_off if chosen is None else is_off & chosen, lambda lane: self._find(p, lane))
            codes = self.tried.get(p, I32)
            if chosen is not None:
                codes = e.select(chosen, codes, self.best.get(p, I32))
                self.best.put(p, codes)
            for i, line in enumerate(lines):
                value, w = e.to_float(level(codes, i) << 1 | 1), g.cost(line)
                by_x, by_level = by_x + w * g.x(line) * value, by_level + w * value * value
            return [by_x, by_level, off | e.select(is_off, bit, e.like(bit, 0))]

        zero = e.zero(F32, LANES)
        return e.loop(ir.Constant(I64, self.parts), [zero, zero, e.zero(I32, LANES)], part)

    def _level(self, x: Vec) -> Vec:
        return self.e.limited(nearest((x - 1.0) * 0.5), 0, self.points.layout.radix - 1)

    def _find(self, p: ir.Value, lane: ir.Value) -> None:
        """The nearest point for the part of one group."""
        e, lines = self.e, self.points.lines(p)
        x, root = ([some.get_lane(line, lane) for line in lines] for some in (self.g.xs, self.roots))
        values = e.const(F32, [2.0 * (k % LEVELS) + 1.0 for k in range(LANES)])
        scaled = e.splat(self.scale.get_lane(0, lane), LANES) * values
        self.tried.put_lane(p, lane, self.points.nearest(self.tried.get_lane(p, lane, I32), scaled, x, root))

    def _keep(self, better: Vec) -> list[Vec]:
        for p in range(self.parts):
            self.best.put(p, self.e.select(better, self.tried.get(p, I32), self.best.get(p, I32)))
        return []
