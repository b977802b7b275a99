"""A part of a row of weights for several tokens: what its product is made of, and where its sums are in between.

Activations of several tokens fit in the first-level cache for a part of their columns only. So a few rows are
multiplied with the first columns, then with the next, and each row's sums wait in memory for its next part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir
from numba.core import types

from ...args import PRODUCTS_AT, SEVERAL
from ...simd.emit import F32, I64, Emitter, Vec
from ...simd.types import address

PART = 8  # packets, each of 256 columns
SIZES = (2, 4, SEVERAL)  # tokens; others are filled up with the last one, again

# f(w, tail, cols, first, count, x, tokens, sums), the type of the products below
PART_TYPES = (types.void, address, address, *[types.int64] * 3, address, types.int64, address)


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
        """1 when the row ends with this part, 0 otherwise."""
        packets = e.b.lshr(self.cols, ir.Constant(I64, 8))
        return e.b.zext(e.b.icmp_signed("==", e.b.add(self.first, self.count), packets), I64)

    def rows(self, e: Emitter, size: int, stride: ir.Value) -> list[ir.Value]:
        """Addresses of the activations of `size` tokens, `stride` bytes from each to the next."""
        last = e.b.sub(self.tokens, ir.Constant(I64, 1))
        numbers: list[ir.Value] = [ir.Constant(I64, t) for t in range(size)]
        numbers = [e.b.select(e.b.icmp_signed("<", t, last), t, last) for t in numbers]
        return [e.b.add(self.x, e.b.mul(t, stride)) for t in numbers]

    def before(self, e: Emitter, n: int) -> list[Vec]:
        """The n vectors of sums so far."""
        some = e.b.zext(e.b.icmp_signed("!=", self.first, ir.Constant(I64, 0)), I64)
        nothing = [e.zero(F32, 16)] * n
        return e.loop(some, nothing, lambda _, __: [e.load(F32, 16, self.sums, 64 * k) for k in range(n)])

    def after(self, e: Emitter, sums: list[Vec], totals: Callable[[list[Vec]], Vec]) -> None:
        """Leave the sums for the next part, or the products of all tokens, float32, when there is none."""

        def keep(_: ir.Value, sums: list[Vec]) -> list[Vec]:
            for k, value in enumerate(sums):
                e.store(value, self.sums, 64 * k)
            return sums

        def finish(_: ir.Value, sums: list[Vec]) -> list[Vec]:
            e.store(totals(sums), self.sums, PRODUCTS_AT)
            return sums

        is_last = self.is_last(e)
        e.loop(e.b.xor(is_last, ir.Constant(I64, 1)), sums, keep)
        e.loop(is_last, sums, finish)
