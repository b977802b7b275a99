"""Sorted groups cut in three, in all ways there are. The definition: `formats/quants/splits.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from ...simd.emit import F32, I32, I64, Emitter, Vec
from .encoder import LANES, Batch
from .lanes import Index, Lines

SHIFT = 0.125
_LEVELS = [[level + shift for level in (-1.0, 0.0, 1.0)] for shift in (SHIFT, -SHIFT)]  # shifted up, and down


class Split(NamedTuple):
    """Scales float32 [16] from zero on, levels from 0, shifts of parts of a group, and which groups are not zero."""

    scale: Vec
    level: Callable[[Index], Vec]  # of weight j, int32 [16]
    is_down: list[Vec]  # a bit for each lane
    kept: Vec


class _Cuts:
    """A group's weights in order, and the best of the cuts that were tried: its scale, score, and number."""

    def __init__(self, b: Batch, tables: int) -> None:
        self.b, self.e, self.g, self.size = b, b.e, b.g, b.g.size
        self.x, self.w, self.number = (b.lines(self.size) for _ in range(3))
        self.tables = [b.lines(self.size + 1) for _ in range(tables)]

    def sort(self) -> None:
        """From the smallest on; equal ones stay as they are. The largest of those that are left goes to the end."""
        e, lines = self.e, (self.x, self.w, self.number)

        def begin(j: ir.Value, _: list[Vec]) -> list[Vec]:
            for line, value in zip(lines, (self.g.x(j), self.g.cost(j), _splat(e, j)), strict=True):
                line.put(j, value)
            return []

        def one_pass(k: ir.Value, _: list[Vec]) -> list[Vec]:
            last = e.b.sub(ir.Constant(I64, self.size - 1), k)

            def next_weight(j: ir.Value, largest: list[Vec]) -> list[Vec]:
                after = self.weight(e.b.add(j, ir.Constant(I64, 1)))
                smaller = e.less(after[0], largest[0])
                for line, *pair in zip(lines, after, largest, strict=True):
                    line.put(j, e.select(smaller, *pair))
                return [e.select(smaller, b, a) for a, b in zip(after, largest, strict=True)]

            for line, value in zip(lines, e.loop(last, self.weight(0), next_weight), strict=True):
                line.put(last, value)
            return []

        self.g.each([], begin)
        e.loop(ir.Constant(I64, self.size - 1), [], one_pass)

    def weight(self, j: Index) -> list[Vec]:
        """The one at place j, its cost, and its number in the group."""
        return [self.x.get(j), self.w.get(j), self.number.get(j, I32)]

    def try_all(self, offer: Callable[[ir.Value, ir.Value, list[Vec]], list[Vec]]) -> list[Vec]:
        """best = offer(i, j, best) for all cuts: the lowest level for i weights, the highest from number j on."""
        e, end = self.e, ir.Constant(I64, self.size + 1)

        def from_i(i: ir.Value, best: list[Vec]) -> list[Vec]:
            return e.loop(e.b.sub(end, i), best, lambda k, best: offer(i, e.b.add(i, k), best))

        least = e.const(F32, [float(np.finfo(np.float32).min)] * LANES)
        return e.loop(end, [e.zero(F32, LANES), least, e.const(I32, [-1] * LANES)], from_i)

    def better(self, best: list[Vec], by_x: Vec, by_level: Vec, i: ir.Value, j: ir.Value, shifts: int) -> list[Vec]:
        """The best so far after one more: sums of w * x * level and of w * level * level for a cut and some shifts."""
        e, (_, score, _) = self.e, best
        better = e.less(e.zero(F32, LANES), by_level) & e.less(score * by_level, by_x * by_x)

        def improved(best: list[Vec]) -> list[Vec]:
            scale, score, number = best
            new, cut = by_x / by_level, _splat(e, i) | _splat(e, j) << 8 | shifts << 16
            pairs = ((new, scale), (new * by_x, score), (cut, number))
            return [e.select(better, *pair) for pair in pairs]

        return e.when(e.any(better), best, improved)

    def split(self, best: list[Vec], least: float, parts: int) -> Split:
        """A scale below zero turns levels and shifts round."""
        e, (scale, _, cut) = self.e, best
        most = self.g.each([e.zero(F32, LANES)], lambda j, most: [e.maximum(e.absolute(self.g.x(j)), most[0])])[0]
        kept = e.compare(most, ">=", least) & e.compare(cut, ">=", 0)
        turned = e.less(scale, 0.0)
        ends = [self._weight_at(cut >> shift & 255) for shift in (0, 8)]

        def level(j: Index) -> Vec:
            found = e.zero(I32, LANES)
            for x, number in ends:
                same, here = e.compare(self.g.x(j), "==", x), e.compare(_splat(e, j), ">=", number)
                found = found + e.widen_unsigned(e.less(x, self.g.x(j)) | same & here, I32)
            return e.select(turned, e.like(found, 2) - found, found)

        is_down = [(e.compare(cut >> 16 + k & 1, "==", 1) ^ turned) & kept for k in reversed(range(parts))]
        return Split(e.absolute(scale), level, is_down, kept)

    def _weight_at(self, place: Vec) -> list[Vec]:
        """The weight at a place in order, and its number; behind the last one, what comes after all."""
        e = self.e

        def look(j: ir.Value, found: list[Vec]) -> list[Vec]:
            here = e.compare(place, "==", _splat(e, j))
            return [e.select(here, self.x.get(j), found[0]), e.select(here, self.number.get(j, I32), found[1])]

        after_all = [e.const(F32, [float("inf")] * LANES), e.const(I32, [self.size] * LANES)]
        return self.g.each(after_all, look)


def of_groups(b: Batch, least: float) -> Split:
    """Groups with one shift; those without a magnitude of at least `least` count as zero."""
    e, cuts = b.e, _Cuts(b, 6)
    cuts.sort()
    sums = cuts.tables[:2]
    ends = _add_up(cuts, sums, lambda j: [cuts.w.get(j) * cuts.x.get(j), cuts.w.get(j)])
    high = [cuts.tables[2:4], cuts.tables[4:6]]

    def rest(j: ir.Value, _: list[Vec]) -> list[Vec]:
        above = [end - line.get(j) for end, line in zip(ends, sums, strict=True)]
        for (by_x, by_level), (_, _, v) in zip(high, _LEVELS, strict=True):
            by_x.put(j, above[0] * v)
            by_level.put(j, above[1] * v * v)
        return []

    e.loop(ir.Constant(I64, cuts.size + 1), [], rest)

    def offer(i: ir.Value, j: ir.Value, best: list[Vec]) -> list[Vec]:
        below = [line.get(i) for line in sums]
        middle = [line.get(j) - one for line, one in zip(sums, below, strict=True)]
        for is_down, (low, mid, _) in enumerate(_LEVELS):
            by_x = below[0] * low + middle[0] * mid + high[is_down][0].get(j)
            by_level = below[1] * low * low + middle[1] * mid * mid + high[is_down][1].get(j)
            best = cuts.better(best, by_x, by_level, i, j, is_down)
        return best

    return cuts.split(cuts.try_all(offer), least, 1)


def of_halves(b: Batch, least: float) -> Split:
    """The same where the halves of a group may be shifted differently."""
    e, cuts = b.e, _Cuts(b, 4)
    cuts.sort()
    sums_x, sums_w = cuts.tables[:2], cuts.tables[2:]

    def terms(j: ir.Value) -> list[Vec]:
        x, w, number = cuts.weight(j)
        is_second = e.compare(number, ">=", cuts.size // 2)
        nothing = e.zero(F32, LANES)
        return [e.select(is_second, *pair) for v in (w * x, w) for pair in ((nothing, v), (v, nothing))]

    ends = _add_up(cuts, cuts.tables, terms)
    squares = [[float(np.float32(v) * np.float32(v)) for v in levels] for levels in _LEVELS]
    all_x = [[end * levels[2] for levels in _LEVELS] for end in ends[:2]]
    all_w = [[end * levels[2] * levels[2] for levels in _LEVELS] for end in ends[2:]]

    def offer(i: ir.Value, j: ir.Value, best: list[Vec]) -> list[Vec]:
        by_x, by_level = [], []
        for half in (0, 1):
            moved = sums_x[half].get(i) + sums_x[half].get(j)
            below, above = sums_w[half].get(i), sums_w[half].get(j)
            by_x.append([one - moved for one in all_x[half]])
            by_level.append([
                one + below * (low - mid) + above * (mid - high)
                for one, (low, mid, high) in zip(all_w[half], squares, strict=True)
            ])  # fmt: skip
        for k in range(4):
            first, second = divmod(k, 2)
            together = [by[0][first] + by[1][second] for by in (by_x, by_level)]
            best = cuts.better(best, together[0], together[1], i, j, k)
        return best

    return cuts.split(cuts.try_all(offer), least, 2)


def _add_up(cuts: _Cuts, sums: Sequence[Lines], terms: Callable[[ir.Value], list[Vec]]) -> list[Vec]:
    """Sums of the first 0, 1, ... weights in order, into lines; of all of them, as vectors."""
    e, zeros = cuts.e, [cuts.e.zero(F32, LANES)] * len(sums)

    def put(j: Index, values: list[Vec]) -> list[Vec]:
        for line, value in zip(sums, values, strict=True):
            line.put(j, value)
        return values

    def one_more(j: ir.Value, before: list[Vec]) -> list[Vec]:
        return put(e.b.add(j, ir.Constant(I64, 1)), [a + b for a, b in zip(before, terms(j), strict=True)])

    put(0, zeros)
    return cuts.g.each(zeros, one_more)


def _splat(e: Emitter, j: Index) -> Vec:
    return e.const(I32, [j] * LANES) if isinstance(j, int) else e.splat(Vec(e, e.b.trunc(j, I32)), LANES)
