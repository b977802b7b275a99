"""A part of a row of weights for several tokens: what its product is made of, and where its sums are in between.

Activations of several tokens fit in the first-level cache for a part of their columns only. So a few rows are
multiplied with the first columns, then with the next, and each row's sums wait in memory for its next part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import types

from ...args import PRODUCTS_AT, SEVERAL, SUMS_BYTES
from ...simd.emit import F32, I64, Emitter, Vec
from ...simd.types import address, emitted

PART = 8  # packets, each of 256 columns
SIZES = (2, 4, SEVERAL)  # tokens; others are filled up with the last one, again


@dataclass(frozen=True)
class Row:
    """A row of weights at `w`; its blocks after the last whole packet are at `tail`, its sums in between at `sums`."""

    w: ir.Value
    tail: ir.Value
    sums: ir.Value


@dataclass(frozen=True)
class Part:
    """Rows of `cols` weights, each `row_bytes` behind the one before, from their packet `first` on, `count` packets.

    x: activations of `tokens` tokens. After the last whole packet the blocks at the rows' tails belong to them too.
    """

    rows: tuple[Row, ...]
    cols: ir.Value
    first: ir.Value
    count: ir.Value
    x: ir.Value
    tokens: ir.Value
    row_bytes: ir.Value

    def is_last(self, e: Emitter) -> ir.Value:
        """Whether the rows end with this part: one bit."""
        packets = e.b.lshr(self.cols, ir.Constant(I64, 8))
        return e.b.icmp_signed("==", e.b.add(self.first, self.count), packets)

    def activations(self, e: Emitter, size: int, stride: ir.Value) -> list[ir.Value]:
        """Addresses of the activations of `size` tokens, `stride` bytes from each to the next."""
        last = e.b.sub(self.tokens, ir.Constant(I64, 1))
        numbers: list[ir.Value] = [ir.Constant(I64, t) for t in range(size)]
        numbers = [e.b.select(e.b.icmp_signed("<", t, last), t, last) for t in numbers]
        return [e.b.add(self.x, e.b.mul(t, stride)) for t in numbers]

    def before(self, e: Emitter, n: int) -> list[Vec]:
        """The n vectors of sums of each row so far, row by row."""
        some = e.b.icmp_signed("!=", self.first, ir.Constant(I64, 0))
        nothing = [e.zero(F32, 16)] * (n * len(self.rows))

        def load(_: list[Vec]) -> list[Vec]:
            return [e.load(F32, 16, row.sums, 64 * k) for row in self.rows for k in range(n)]

        return e.when(some, nothing, load)

    def after(self, e: Emitter, sums: list[Vec], totals: Callable[[list[Vec]], Vec]) -> None:
        """Leave the sums for the next part, or the products of all tokens, float32, when there is none."""
        n = len(sums) // len(self.rows)

        def keep(sums: list[Vec]) -> list[Vec]:
            for k, value in enumerate(sums):
                e.store(value, self.rows[k // n].sums, 64 * (k % n))
            return sums

        def finish(sums: list[Vec]) -> list[Vec]:
            for r, row in enumerate(self.rows):
                e.store(totals(sums[n * r : n * (r + 1)]), row.sums, PRODUCTS_AT)
            return sums

        is_last = self.is_last(e)
        e.when(e.b.not_(is_last), sums, keep)
        e.when(is_last, sums, finish)


class _Rows:
    """Consecutive rows. The blocks after the last whole packet of the last are at `tail`, of others in place."""

    def __init__(self, e: Emitter, w: Vec, row_bytes: Vec, rows: Vec, tail: Vec, cols: Vec, super_bytes: int) -> None:
        self.e, self.w, self.row_bytes, self.rows, self.tail = e, w.ll, row_bytes.ll, rows.ll, tail.ll
        self.last = e.b.sub(rows.ll, ir.Constant(I64, 1))
        self.whole = e.b.mul(e.b.lshr(cols.ll, ir.Constant(I64, 8)), ir.Constant(I64, super_bytes))

    def each(self, sums: Vec, at_once: int, body: Callable[[tuple[Row, ...]], None]) -> None:
        """body(rows) for each `at_once` of them. Where fewer are left, the last one is there again."""
        b = self.e.b

        def some(i: ir.Value, _: list[Vec]) -> list[Vec]:
            first = b.mul(i, ir.Constant(I64, at_once))
            numbers = [b.add(first, ir.Constant(I64, k)) for k in range(at_once)]
            kept = [b.select(b.icmp_signed("<", r, self.last), r, self.last) for r in numbers]
            body(tuple(self._row(r, sums.ll) for r in kept))
            return []

        count = b.udiv(b.add(self.rows, ir.Constant(I64, at_once - 1)), ir.Constant(I64, at_once))
        self.e.loop(count, [], some)

    def _row(self, r: ir.Value, sums: ir.Value) -> Row:
        b = self.e.b
        row = b.add(self.w, b.mul(r, self.row_bytes))
        tail = b.select(b.icmp_signed("==", r, self.last), self.tail, b.add(row, self.whole))
        return Row(row, tail, self.e.index(sums, r, SUMS_BYTES))


_ROWS = (address, types.int64, types.int64, address, types.int64)  # w, row_bytes, rows, tail, cols


def rows_product(emit: Callable[[Emitter, ir.Value, ir.Value, ir.Value, ir.Value], Vec], super_bytes: int) -> Any:
    """f(w, row_bytes, rows, tail, cols, x, sums): rows of weights with one token, whose activations are at x.

    Made of what emits the product of a row, its tail, its columns and x; it is left where `Part.after` leaves it.
    """

    @emitted(types.void, *_ROWS, address, address, apart=True)
    def product(e: Emitter, w: Vec, row_bytes: Vec, rows: Vec, tail: Vec, cols: Vec, x: Vec, sums: Vec) -> None:
        def one(found: tuple[Row, ...]) -> None:
            e.store(emit(e, found[0].w, found[0].tail, cols.ll, x.ll), found[0].sums, PRODUCTS_AT)

        _Rows(e, w, row_bytes, rows, tail, cols, super_bytes).each(sums, 1, one)

    return product


def parts_product(emit: Callable[[Emitter, Part], None], super_bytes: int, at_once: int) -> Any:
    """f(w, row_bytes, rows, tail, cols, x, sums, first, tokens): a part of some rows, from packet `first` on.

    Made of what emits the product of a Part of `at_once` rows.
    """

    @emitted(types.void, *_ROWS, address, address, *[types.int64] * 2, apart=True)
    def product(
        e: Emitter, w: Vec, row_bytes: Vec, rows: Vec, tail: Vec, cols: Vec, x: Vec, sums: Vec, first: Vec, tokens: Vec
    ) -> None:
        b, most = e.b, ir.Constant(I64, PART)
        left = b.sub(b.lshr(cols.ll, ir.Constant(I64, 8)), first.ll)
        count = b.select(b.icmp_signed("<", left, most), left, most)

        def some(found: tuple[Row, ...]) -> None:
            emit(e, Part(found, cols.ll, first.ll, count, x.ll, tokens.ll, row_bytes.ll))

        _Rows(e, w, row_bytes, rows, tail, cols, super_bytes).each(sums, at_once, some)

    return product
