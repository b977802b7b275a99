"""The points of a grid: the one that weights are rounded to each alone, and the nearest of those around it.

The definition is `Nearby` in `formats/quants/grids.py`; how codes and tables look is said in `points.py`. Weights of
sixteen groups are rounded side by side. Those that fall off the grid are looked after one by one: for them, sixteen
points that are near stand side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llvmlite import ir

from ...points import COUNT_BITS, Layout
from ...simd.dot import lookup8
from ...simd.emit import F32, I32, I64, Vec
from .encoder import LANES, LINE_BYTES, Batch

LEVELS = 8  # that a code can tell apart
_LAST = 0x7FFFFFFF  # comes after all


class Points:
    """Those that a type rounds its weights to."""

    def __init__(self, b: Batch, type_name: str) -> None:
        self.e, self.layout = b.e, Layout.of(type_name)
        self._entries = b.points
        self._numbers, self._vectors = (b.e.at(b.points, at) for at in (self.layout.numbers_at, self.layout.vectors_at))

    @property
    def size(self) -> int:
        """Coordinates of a point."""
        return self.layout.size

    def lines(self, p: ir.Value) -> list[ir.Value]:
        """Numbers of the weights of part p of a group."""
        first = self.e.b.mul(p, ir.Constant(I64, self.size))
        return [self.e.b.add(first, ir.Constant(I64, i)) for i in range(self.size)]

    def entries(self, levels: Sequence[Vec]) -> Vec:
        """What the table says of the place of so many levels: int32 [16], below zero off the grid."""
        return self._looked_up(self._entries, levels)

    def numbers(self, codes: Vec) -> Vec:
        """Those of points, int32 [16]."""
        return self._looked_up(self._numbers, [level(codes, i) for i in range(self.size)])

    def nearest(self, entry: Vec, values: Vec, x: Sequence[Vec], w: Sequence[Vec]) -> Vec:
        """The code of the point around a place whose error, weighted by w, is least; of equal ones the first.

        entry: what the table says of the place, int32. values: what each level is times the scale, the first eight of
        float32 [16]. x and w: float32, one for each coordinate.
        """
        e = self.e
        at, count = self._around(entry)
        lanes = e.const(I32, range(LANES))
        errors = [_weighted_squares(values, *pair) for pair in zip(x, w, strict=True)]

        def next_vector(k: ir.Value, carried: list[Vec]) -> list[Vec]:
            least, nth = carried
            codes = e.load(I32, LANES, e.index(at, k, LINE_BYTES))
            error = lookup8(e, errors[0], codes, self.layout.radix)
            for i, one in enumerate(errors[1:], 1):
                error = error + lookup8(e, one, codes >> 4 * i, self.layout.radix)
            here = e.splat(Vec(e, e.b.trunc(k, I32)) * LANES, LANES) + lanes
            better = e.less(error, least)
            return [e.select(better, error, least), e.select(better, here, nth)]

        most = e.const(F32, [float(np.finfo(np.float32).max)] * LANES)
        least, nth = e.loop(count, [most, lanes], next_vector)
        bits = e.bitcast(least, I32, LANES)  # of numbers from zero on, which have the order of their bits
        is_least = e.compare(bits, "==", _least(bits))
        return e.load(I32, 0, e.index(at, e.widen_unsigned(_least(e.select(is_least, nth, _LAST)), I64).ll, 4))

    def _around(self, entry: Vec) -> tuple[ir.Value, ir.Value]:
        """Where the vectors of codes around a place are, and how many."""
        where = self.e.widen_unsigned(entry ^ -1, I64)
        return self.e.index(self._vectors, (where >> COUNT_BITS).ll, LINE_BYTES), (where & (1 << COUNT_BITS) - 1).ll

    def _looked_up(self, table: ir.Value, levels: Sequence[Vec]) -> Vec:
        e, place = self.e, levels[-1]
        for one in reversed(levels[:-1]):
            place = place * self.layout.radix + one
        where = e.widen_unsigned(place, I64)
        return e.gather([e.load(I32, 0, e.index(table, where.lane(k).ll, 4)) for k in range(LANES)])


def level(codes: Vec, i: int) -> Vec:
    """The number of the level of coordinate i: int32, from 0."""
    return codes >> 4 * i & LEVELS - 1


def _weighted_squares(values: Vec, x: Vec, w: Vec) -> Vec:
    off = values - x
    return off.e.like(off, w) * off * off


def _least(values: Vec) -> Vec:
    return values.e.call(f"llvm.vector.reduce.smin.v{values.n}i32", I32, values)
