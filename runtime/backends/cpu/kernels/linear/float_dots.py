"""Products of rows of float weights with float32 activations, for one token or several.

64 columns are multiplied and added by themselves before they go to the sum, so that the next 64 need not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from ...simd.emit import F32, I64, Emitter, Vec
from .ahead import ask_ahead
from .floats import FloatType
from .part import Part, parts_product, rows_product

_AT_ONCE = 4  # vectors of 16 columns

# (weights of some columns, the first of them, sums) -> sums
_Add = Callable[[list[Vec], ir.Value, list[Vec]], list[Vec]]


class FloatProducts:
    """Emits products of rows of one type."""

    def __init__(self, e: Emitter, kind: type[FloatType]) -> None:
        self.e, self.kind = e, kind

    def of_one(self, w: ir.Value, cols: ir.Value, x: ir.Value) -> Vec:
        """A row with one token."""
        add = self._adding([x])
        sums = self._steps(w, ir.Constant(I64, 0), cols, (16 * _AT_ONCE, 16), [self.e.zero(F32, 16)], add)
        return self._totals(w, cols, sums, add).lane(0)

    def of_part(self, part: Part, size: int) -> None:
        """A part of a row with `size` tokens."""
        e, b = self.e, self.e.b
        (row,), add = part.rows, self._adding(part.activations(e, size, b.shl(part.cols, ir.Constant(I64, 2))))
        begin, end = (b.shl(v, ir.Constant(I64, 8)) for v in (part.first, b.add(part.first, part.count)))
        end = b.select(part.is_last(e), part.cols, end)
        sums = self._steps(row.w, begin, end, (16 * _AT_ONCE, 16), part.before(e, size), add)
        part.after(e, sums, lambda sums: self._totals(row.w, part.cols, sums, add))

    def _adding(self, rows: list[ir.Value]) -> _Add:
        """What adds some columns of these rows of activations."""
        e = self.e

        def add(weights: list[Vec], column: ir.Value, sums: list[Vec]) -> list[Vec]:
            places = [e.index(row, column, 4) for row in rows]
            return [self._plus(total, weights, x_at) for total, x_at in zip(sums, places, strict=True)]

        return add

    def _steps(
        self, w: ir.Value, begin: ir.Value, end: ir.Value, widths: tuple[int, ...], sums: list[Vec], add: _Add
    ) -> list[Vec]:
        """Add columns from `begin` to `end`, so many at a time as `widths` says, one after the other."""
        e, b, size = self.e, self.e.b, self.kind.size
        for n in widths:
            count = b.udiv(b.sub(end, begin), ir.Constant(I64, n))

            def some(i: ir.Value, sums: list[Vec], n: int = n, begin: ir.Value = begin) -> list[Vec]:
                column = b.add(begin, b.mul(i, ir.Constant(I64, n)))
                at = e.index(w, column, size)
                ask_ahead(e, at, n * size, numbers=True)
                return add(self._weights(at, n), column, sums)

            sums = e.loop(count, sums, some)
            begin = b.add(begin, b.mul(count, ir.Constant(I64, n)))
        return sums

    def _totals(self, w: ir.Value, cols: ir.Value, sums: list[Vec], add: _Add) -> Vec:
        """Each token's sum, and the columns after the last whole vector, one by one."""
        e, totals = self.e, self.e.sums(sums)
        singles = [totals.lane(t) for t in range(totals.n)]
        return e.gather(self._steps(w, e.b.and_(cols, ir.Constant(I64, -16)), cols, (1,), singles, add))

    def _weights(self, at: ir.Value, n: int) -> list[Vec]:
        load, e, size = self.kind.load, self.e, self.kind.size
        if n == 1:  # a vector of one: half and bfloat16 are widened as vectors
            return [load(e, at, 1).lane(0)]
        return [load(e, e.at(at, size * k), 16) for k in range(0, n, 16)]

    def _plus(self, total: Vec, weights: list[Vec], x_at: ir.Value) -> Vec:
        """Rounded as written, so that one token and several get the same bits."""
        e, n = self.e, weights[0].n
        x = [e.load(F32, n, x_at, 64 * k) for k in range(len(weights))]
        product = e.times(weights[0], x[0])
        for w, v in zip(weights[1:], x[1:], strict=True):
            product = e.fma(w, v, product)
        return e.plus(total, product)


def float_rows(kind: type[FloatType]) -> Any:
    """As dots.quantized_rows; there are no tails."""
    return rows_product(lambda e, w, _tail, cols, x: FloatProducts(e, kind).of_one(w, cols, x), 0)


def float_parts(kind: type[FloatType], size: int) -> Any:
    """As dots.quantized_parts; there are no tails."""
    return parts_product(lambda e, part: FloatProducts(e, kind).of_part(part, size), 0, 1)
