"""Products of rows of quantized weights with packets of activations (packets.py).

A row is unpacked in registers, in the lanes of a packet, once for all tokens: then a token costs four dot products, one
conversion, a product of scales and one or two multiply-adds for 256 columns. Whatever the number of tokens, each of
them goes through the same operations, so that a result has the same bits in any company.

Blocks after the last whole 256 columns are read as if the row went on, with scales of zero for what is not there. That
is the next row; behind the last one may be the end of the file, so its blocks are copied first (rows.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from ...args import PACKET_BYTES, PACKET_PARTS
from ...features import target
from ...simd.dot import dot, is_centred
from ...simd.emit import F32, I8, I32, I64, Emitter, Vec
from .ahead import ask_ahead, ask_rows_ahead
from .part import Part, parts_product, rows_product
from .weights import InLanes, WeightType

# (256 columns of each row, number of the packet, sums) -> sums
_Add = Callable[[list[InLanes], ir.Value, list[Vec]], list[Vec]]
# asks for what is read after 256 columns at an address
_Ask = Callable[[ir.Value], None]


class RowProducts:
    """Emits products of rows of one type."""

    def __init__(self, e: Emitter, kind: type[WeightType]) -> None:
        self.e, self.kind = e, kind

    def of_one(self, w: ir.Value, tail: ir.Value, cols: ir.Value, x: ir.Value, *, is_whole: bool) -> Vec:
        """A row with one token. `is_whole`: it ends with a whole packet; else it certainly does not."""
        e, packets = self.e, self.e.b.lshr(cols, ir.Constant(I64, 8))

        def add(weights: list[InLanes], i: ir.Value, sums: list[Vec]) -> list[Vec]:
            return [self._add(weights[0], e.index(x, i, PACKET_BYTES), sums[0])]

        def ask(at: ir.Value) -> None:
            ask_ahead(e, at, self.kind.super_bytes())

        sums = self._whole([w], ir.Constant(I64, 0), packets, [e.zero(F32, 16)], add, ask)
        return e.sums(sums if is_whole else self._rest([tail], cols, sums, add)).lane(0)

    def of_part(self, part: Part, size: int) -> None:
        """A part of some rows with `size` tokens."""
        e, n = self.e, len(part.rows)
        packets = e.b.lshr(e.at(part.cols, 255), ir.Constant(I64, 8))
        tokens = part.activations(e, size, e.b.mul(packets, ir.Constant(I64, PACKET_BYTES)))

        def add(weights: list[InLanes], i: ir.Value, sums: list[Vec]) -> list[Vec]:
            result = list(sums)
            for t, token in enumerate(tokens):
                packet = e.index(token, i, PACKET_BYTES)
                for r in range(n):
                    result[r * size + t] = self._add(weights[r], packet, sums[r * size + t])
            return result

        def ask(at: ir.Value) -> None:
            ask_rows_ahead(e, at, self.kind.super_bytes(), part.row_bytes)

        sums = self._whole([row.w for row in part.rows], part.first, part.count, part.before(e, size), add, ask)
        if self.kind.block < 256:
            tails, no_lanes = [row.tail for row in part.rows], ir.Constant(I64, 0)
            there_are = e.b.icmp_unsigned("!=", self._lanes_left(part.cols), no_lanes)
            wanted = e.b.and_(there_are, part.is_last(e))
            sums = e.when(wanted, sums, lambda sums: self._rest(tails, part.cols, sums, add))
        part.after(e, sums, e.sums)

    def _whole(
        self, rows: list[ir.Value], first: ir.Value, count: ir.Value, sums: list[Vec], add: _Add, ask: _Ask
    ) -> list[Vec]:
        """Add `count` whole packets' worth of columns."""
        e, size = self.e, self.kind.super_bytes()

        def one(k: ir.Value, sums: list[Vec]) -> list[Vec]:
            i = e.b.add(first, k)
            places = [e.index(w, i, size) for w in rows]
            for at in places:
                ask(at)
            return add([self.kind.in_lanes(e, at) for at in places], i, sums)

        return e.loop(count, sums, one)

    def _rest(self, tails: list[ir.Value], cols: ir.Value, sums: list[Vec], add: _Add) -> list[Vec]:
        """Add the columns after the last whole packet's worth."""
        e, kind = self.e, self.kind
        for tail in tails:
            ask_ahead(e, tail, kind.super_bytes() // 2)
        there = e.below(self._lanes_left(cols), 16)
        packets = e.b.lshr(cols, ir.Constant(I64, 8))
        return add([kind.in_lanes(e, tail).where(there) for tail in tails], packets, sums)

    def _lanes_left(self, cols: ir.Value) -> ir.Value:
        """Lanes of a packet that the columns after the last whole one take."""
        return self.e.b.lshr(self.e.b.and_(cols, ir.Constant(I64, 255)), ir.Constant(I64, 4))

    def _add(self, w: InLanes, packet: ir.Value, total: Vec) -> Vec:
        """Add 256 columns of one token: first what biases are multiplied with, then the products of codes."""
        e = self.e
        dx = self._part(packet, "scale")
        for bias, x_sum in zip(w.bias, self._sums(packet, len(w.bias)), strict=True):
            total = e.fma(bias, x_sum, total)
        products = [e.to_float(product) for product in self._products(w, packet)]
        if len(products) == 1:
            return e.fma(products[0], w.scale[0] * dx, total)
        return e.fma(e.fma(products[1], w.scale[1], products[0] * w.scale[0]), dx, total)

    def _part(self, packet: ir.Value, name: str) -> Vec:
        return self.e.load(I32 if name.startswith("neg") else F32, 16, packet, PACKET_PARTS[name])

    def _products(self, w: InLanes, packet: ir.Value) -> list[Vec]:
        """int32 sums of (code - offset) * activation code, for each vector of scales."""
        e, parts = self.e, len(w.scale)
        starts = self._starts(packet, parts)
        for m, vector in enumerate(w.codes):
            part = m * parts // 4
            starts[part] = dot(e, starts[part], vector, self._codes(packet, m), self.kind.bits)
        return starts

    def _codes(self, packet: ir.Value, m: int) -> Vec:
        return self.e.load(I8, 64, packet, PACKET_PARTS["codes"] + 64 * m)

    def _starts(self, packet: ir.Value, parts: int) -> list[Vec]:
        """A fixed zero point is free: it is where the integer sums start."""
        offset = self.kind.offset
        if not offset or is_centred(self.e.isa, self.kind.bits):
            return [self.e.zero(I32, 16)] * parts
        shift, whole = offset.bit_length() - 1, self._part(packet, "neg")
        if parts == 1:
            return [whole << shift]
        first = self._part(packet, "neg_first")
        return [first << shift, (whole - first) << shift]

    def _sums(self, packet: ir.Value, parts: int) -> list[Vec]:
        """Sums of the activations that biases are multiplied with."""
        e = self.e
        if parts == 0:
            return []
        whole = self._part(packet, "sum")
        if parts == 1:
            return [whole]
        codes = -e.to_float(self._part(packet, "neg_first"))
        first = codes * self._part(packet, "scale")
        return [first, whole - first]


def quantized_rows(kind: type[WeightType], *, are_whole: bool) -> Any:
    """Rows of weights with one row of packets, as part.rows_product says; `are_whole`: of whole packets alone."""

    def product(e: Emitter, w: ir.Value, tail: ir.Value, cols: ir.Value, x: ir.Value) -> Vec:
        return RowProducts(e, kind).of_one(w, tail, cols, x, is_whole=are_whole)

    return rows_product(product, kind.super_bytes())


def quantized_parts(kind: type[WeightType], size: int) -> Any:
    """Parts of rows with up to `size` tokens, as part.parts_product says."""

    def product(e: Emitter, part: Part) -> None:
        RowProducts(e, kind).of_part(part, size)

    return parts_product(product, kind.super_bytes(), together(kind, size))


def together(kind: type[WeightType], size: int) -> int:
    """Rows multiplied at once: two read the activations of several tokens once, where there are registers for both."""
    return 2 if target().isa.lanes == 16 and kind.offset is not None and size >= 4 else 1
