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

from ...args import PRODUCTS_AT, SEVERAL
from ...simd.emit import F32, I64, Emitter, Vec
from ...simd.types import address, emitted

PART = 8  # packets, each of 256 columns
SIZES = (2, 4, SEVERAL)  # tokens; others are filled up with the last one, again


@dataclass(frozen=True)
class Part:
    """A row of `cols` weights at `w` from its packet `first` on, `count` packets; x: activations of `tokens` tokens.

    After the last whole packet the blocks at `tail` belong to it too. Sums are those of the packets before `first`.
    """

    w: ir.Value
    tail: ir.Value
    cols: ir.Value
    first: ir.Value
    count: ir.Value
    x: ir.Value
    tokens: ir.Value
    sums: ir.Value

    def is_last(self, e: Emitter) -> ir.Value:
        """Whether the row ends with this part: one bit."""
        packets = e.b.lshr(self.cols, ir.Constant(I64, 8))
        return e.b.icmp_signed("==", e.b.add(self.first, self.count), packets)

    def rows(self, e: Emitter, size: int, stride: ir.Value) -> list[ir.Value]:
        """Addresses of the activations of `size` tokens, `stride` bytes from each to the next."""
        last = e.b.sub(self.tokens, ir.Constant(I64, 1))
        numbers: list[ir.Value] = [ir.Constant(I64, t) for t in range(size)]
        numbers = [e.b.select(e.b.icmp_signed("<", t, last), t, last) for t in numbers]
        return [e.b.add(self.x, e.b.mul(t, stride)) for t in numbers]

    def before(self, e: Emitter, n: int) -> list[Vec]:
        """The n vectors of sums so far."""
        some = e.b.icmp_signed("!=", self.first, ir.Constant(I64, 0))
        nothing = [e.zero(F32, 16)] * n
        return e.when(some, nothing, lambda _: [e.load(F32, 16, self.sums, 64 * k) for k in range(n)])

    def after(self, e: Emitter, sums: list[Vec], totals: Callable[[list[Vec]], Vec]) -> None:
        """Leave the sums for the next part, or the products of all tokens, float32, when there is none."""

        def keep(sums: list[Vec]) -> list[Vec]:
            for k, value in enumerate(sums):
                e.store(value, self.sums, 64 * k)
            return sums

        def finish(sums: list[Vec]) -> list[Vec]:
            e.store(totals(sums), self.sums, PRODUCTS_AT)
            return sums

        is_last = self.is_last(e)
        e.when(e.b.not_(is_last), sums, keep)
        e.when(is_last, sums, finish)


def part_product(emit: Callable[[Emitter, Part], None]) -> Any:
    """f(w, tail, cols, first, count, x, tokens, sums) for kernels, out of what emits the product of a Part of these."""

    @emitted(types.void, address, address, *[types.int64] * 3, address, types.int64, address)
    def product(
        e: Emitter, w: Vec, tail: Vec, cols: Vec, first: Vec, count: Vec, x: Vec, tokens: Vec, sums: Vec
    ) -> None:
        emit(e, Part(*(value.ll for value in (w, tail, cols, first, count, x, tokens, sums))))

    return product
