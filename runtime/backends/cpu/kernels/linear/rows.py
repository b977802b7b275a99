"""Few tokens: unpack a row of weights in registers, multiply it with each of them; the file is read once, in order.

Codes go into the lanes of a packet of activations (packets.py), once for all tokens: then a token costs four dot
products, one conversion and two or three multiply-adds for 256 columns. Whatever the number of tokens, each of them
goes through the same operations, so that a result has the same bits in any company.

Blocks after the last whole 256 columns are read as if the row went on, with scales of zero for what is not there. That
is the next row; behind the last one may be the end of the file, so its blocks are copied first (`tail_of`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...args import PACKET_BYTES, PACKET_PARTS
from ...jit import Kernel, device, kernel_family
from ...simd.dot import dot, sum_fours
from ...simd.emit import F32, I8, I32, I64, Emitter, Vec
from ...simd.table import byte_view, f32_view, plus
from ...simd.types import address, emitted
from ..share import chunk_of, is_few, next_chunk, rows_of
from .table import FLOATS, QUANTIZED
from .weights import InLanes, WeightType

# Bytes ahead of the product at which the row stream is asked for. Rows follow each other in the file, so this crosses
# into the next rows. From memory, two threads (Sapphire Rapids, plain reads 36 GB/s): Q8_0 29.3 GB/s, Q4_0 25.6 at 2048
# columns; 1,536 bytes and 4,608 are 2 to 10 % slower, and without it one thread reads half as fast.
PREFETCH = 3072
SIZES = (1, 4, 8)  # tokens multiplied with a row while it is in registers
_FLOAT_TOKENS = 4  # of float weights: their activations are four times as large, more leave the first-level cache
_BYTE_SUM_BITS = 6  # codes up to so many bits can be added as bytes, four of them


class _RowDot:
    """Emits the products of one row of weights with `tokens` rows of packets."""

    def __init__(self, e: Emitter, kind: type[WeightType], tokens: int) -> None:
        self.e, self.kind, self.tokens = e, kind, tokens

    def emit(self, w: ir.Value, tail: ir.Value, cols: ir.Value, x: ir.Value, stride: ir.Value) -> list[Vec]:
        e, kind = self.e, self.kind
        rows = [e.b.add(x, e.b.mul(stride, ir.Constant(I64, t))) if t else x for t in range(self.tokens)]
        supers = e.b.udiv(cols, ir.Constant(I64, 256))

        def body(i: ir.Value, acc: list[Vec]) -> list[Vec]:
            at = e.index(w, i, kind.super_bytes())
            for line in range(0, kind.super_bytes(), 64):
                e.prefetch(at, PREFETCH + line)
            return self._super(kind.in_lanes(e, at), [e.index(row, i, PACKET_BYTES) for row in rows], acc)

        # Per token: one accumulator of products, one of what depends on sums of codes or of activations only.
        acc = e.loop(supers, [e.zero(F32, 16)] * (2 * self.tokens), body)
        if kind.block < 256:
            lanes = e.b.lshr(e.b.and_(cols, ir.Constant(I64, 255)), ir.Constant(I64, 4))

            def last(_: ir.Value, acc: list[Vec]) -> list[Vec]:
                for line in range(0, kind.super_bytes() // 2, 64):
                    e.prefetch(tail, PREFETCH + line)
                there = e.below(lanes, 16)
                return self._super(
                    kind.in_lanes(e, tail).where(there), [e.index(row, supers, PACKET_BYTES) for row in rows], acc
                )

            some = e.b.zext(e.b.icmp_unsigned("!=", lanes, ir.Constant(I64, 0)), I64)
            acc = e.loop(some, acc, last)
        # The last additions are rounded as written: every kernel that inlines this product gets the same bits.
        return [e.sum(e.plus(acc[2 * t], acc[2 * t + 1])) for t in range(self.tokens)]

    def _super(self, w: InLanes, packets: list[ir.Value], acc: list[Vec]) -> list[Vec]:
        """Add 256 columns; acc: two vectors for each token."""
        e = self.e
        weights = self._weight_sums(w)
        result = []
        for t, packet in enumerate(packets):
            dx = self._part(packet, "scale")
            rest = e.fma(weights, self._part(packet, "centre"), acc[2 * t + 1])
            for bias, x_sum in zip(w.bias, self._sums(packet, len(w.bias)), strict=True):
                rest = e.fma(bias, x_sum, rest)
            totals = [e.to_float(total) for total in self._products(w, packet)]
            if len(totals) == 1:
                result.append(e.fma(totals[0], w.scale[0] * dx, acc[2 * t]))
            else:
                result.append(e.fma(e.fma(totals[1], w.scale[1], totals[0] * w.scale[0]), dx, acc[2 * t]))
            result.append(rest)
        return result

    def _part(self, packet: ir.Value, name: str) -> Vec:
        return self.e.load(I32 if name.startswith("neg") else F32, 16, packet, PACKET_PARTS[name])

    def _weight_sums(self, w: InLanes) -> Vec:
        """The sum of each lane's weights, without their biases: what a zero point is multiplied with."""
        e, parts = self.e, len(w.scale)
        result = None
        for part, scale in enumerate(w.scale):
            codes = w.codes[part * 4 // parts : (part + 1) * 4 // parts]
            if self.kind.bits <= _BYTE_SUM_BITS:
                while len(codes) > 1:
                    codes = [a + b for a, b in zip(codes[::2], codes[1::2], strict=True)]
            total = e.like(e.zero(I32, 16), -16 // parts * (self.kind.offset or 0))
            for vector in codes:
                total = sum_fours(e, total, vector)
            value = e.to_float(total)
            result = value * scale if result is None else e.fma(value, scale, result)
        assert result is not None
        return result

    def _products(self, w: InLanes, packet: ir.Value) -> list[Vec]:
        """int32 sums of (code - offset) * activation code, for each vector of scales."""
        e, parts = self.e, len(w.scale)
        starts = self._starts(packet, parts)
        for m, vector in enumerate(w.codes):
            part = m * parts // 4
            x = e.load(I8, 64, packet, PACKET_PARTS["codes"] + 64 * m)
            starts[part] = dot(e, starts[part], vector, x, self.kind.bits)
        return starts

    def _starts(self, packet: ir.Value, parts: int) -> list[Vec]:
        """A fixed zero point is free: it is where the integer sums start."""
        offset = self.kind.offset
        if not offset:
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
        first = e.fma(codes, self._part(packet, "scale"), self._part(packet, "centre") * 8.0)
        return [first, whole - first]


def quantized_dot(kind: type[WeightType], tokens: int) -> Any:
    """f(w, tail, cols, x, stride) -> tuple of `tokens` float32: one row of weights with `tokens` rows of activations.

    `tail` is where the blocks after the last whole 256 columns are, x the address of the first row of activations.
    """

    @emitted(types.UniTuple(types.float32, tokens), address, address, types.int64, address, types.int64)
    def dot(e: Emitter, w: Vec, tail: Vec, cols: Vec, x: Vec, stride: Vec) -> Vec:
        return _pack(e, _RowDot(e, kind, tokens).emit(w.ll, tail.ll, cols.ll, x.ll, stride.ll))

    return dot


def float_dot(load: Any, size: int, tokens: int) -> Any:
    """The same for float weights and activations."""

    def products(e: Emitter, w: ir.Value, cols: ir.Value, rows: list[ir.Value]) -> list[Vec]:
        vectors = e.b.udiv(cols, ir.Constant(I64, 16))

        def body(i: ir.Value, acc: list[Vec]) -> list[Vec]:
            at = e.index(w, i, 16 * size)
            e.prefetch(at, PREFETCH)
            weights = load(e, at, 16)
            return [e.fma(weights, e.load(F32, 16, e.index(row, i, 64)), a) for row, a in zip(rows, acc, strict=True)]

        totals = [e.sum(a) for a in e.loop(vectors, [e.zero(F32, 16)] * len(rows), body)]
        done = e.b.mul(vectors, ir.Constant(I64, 16))

        def one(i: ir.Value, acc: list[Vec]) -> list[Vec]:
            k = e.b.add(done, i)
            # Two copies of one element: half and bfloat16 are widened as vectors.
            weight = load(e, e.index(w, k, size), 1).lane(0)
            return [a + weight * e.load(F32, 0, e.index(row, k, 4)) for row, a in zip(rows, acc, strict=True)]

        return e.loop(e.b.sub(cols, done), totals, one)

    @emitted(types.UniTuple(types.float32, tokens), address, address, types.int64, address, types.int64)
    def dot(e: Emitter, w: Vec, tail: Vec, cols: Vec, x: Vec, stride: Vec) -> Vec:
        rows = [e.b.add(x.ll, e.b.mul(stride.ll, ir.Constant(I64, t))) for t in range(tokens)]
        totals = []
        for first in range(0, tokens, _FLOAT_TOKENS):
            totals += products(e, w.ll, cols.ll, rows[first : first + _FLOAT_TOKENS])
        return _pack(e, totals)

    return dot


def _pack(e: Emitter, values: list[Vec]) -> Vec:
    packed = ir.Constant(ir.ArrayType(F32, len(values)), ir.Undefined)
    for i, value in enumerate(values):
        packed = e.b.insert_value(packed, value.ll, i)
    return Vec(e, packed)


def dots_of(name: str) -> list[Any]:
    """The products with each of SIZES tokens, for a type by name."""
    if name in QUANTIZED:
        return [quantized_dot(QUANTIZED[name], n) for n in SIZES]
    kind = FLOATS[name]
    return [float_dot(kind.load, kind.size, n) for n in SIZES]


def stride_of(name: str) -> Any:
    """f(cols) -> bytes from one row of activations to the next, int64."""
    is_float = name in FLOATS

    @device
    def stride(cols):  # type: ignore[no-untyped-def]
        return np.int64(4 * cols) if is_float else (cols + 255) // 256 * PACKET_BYTES

    return stride


def tail_of(name: str) -> Any:
    """f(row address, cols, end of the matrix, scratch) -> where the blocks after the last whole 256 columns are.

    They are copied to `scratch` when eight blocks from there would go beyond the end.
    """
    if name in FLOATS or QUANTIZED[name].block == 256:

        @device
        def none(w, cols, end, scratch):  # type: ignore[no-untyped-def]
            return w

        return none
    block_bytes, super_bytes = QUANTIZED[name].block_bytes, np.uint64(QUANTIZED[name].super_bytes())

    @device
    def tail(w, cols, end, scratch):  # type: ignore[no-untyped-def]
        at = w + np.uint64(cols // 256) * super_bytes
        if cols % 256 == 0 or at + super_bytes <= end:
            return at
        n = cols % 256 // 32 * block_bytes
        source, copy = byte_view(at, n), byte_view(scratch, n)
        for i in range(n):
            copy[i] = source[i]
        return scratch

    return tail


@kernel_family("linear_rows")
def linear_rows(name: str) -> Kernel:
    """out[t, r] = residual[t, r] + (x[t] . w[r] + bias[r]) for all tokens; each thread reads consecutive rows."""
    dot1, dot4, dot8 = dots_of(name)
    stride_from, tail_from = stride_of(name), tail_of(name)

    @device
    def put(a, out, residual, i, value, add):  # type: ignore[no-untyped-def]
        one = plus(value, add)
        out[i] = plus(residual[i], one) if a.residual != 0 else one

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        tokens = rows_of(a, step)
        if not is_few(tokens, a, step):
            return
        stride, end = stride_from(a.cols), a.w + np.uint64(a.n * a.row_bytes)
        scratch = step.scratch + np.uint64(tid * step.scratch_bytes)
        out, residual = f32_view(a.out, tokens * a.n), f32_view(a.residual, tokens * a.n)
        bias = f32_view(a.bias, a.n)
        chunk, turn = chunk_of(a.n, a.row_bytes, nth), np.int64(0)
        while True:
            start, stop, turn = next_chunk(a.queue, a.n, chunk, turn, tid, nth)
            if start == stop:
                break
            for r in range(start, stop):
                w = a.w + np.uint64(r * a.row_bytes)
                tail = tail_from(w, a.cols, end, scratch)
                add = bias[r] if a.bias != 0 else np.float32(0.0)
                t = 0
                while t < tokens:
                    x = a.x + np.uint64(t * stride)
                    if t + 8 <= tokens:
                        y8 = dot8(w, tail, a.cols, x, stride)
                        for k in range(8):
                            put(a, out, residual, (t + k) * a.n + r, y8[k], add)
                        t += 8
                    elif t + 4 <= tokens:
                        y4 = dot4(w, tail, a.cols, x, stride)
                        for k in range(4):
                            put(a, out, residual, (t + k) * a.n + r, y4[k], add)
                        t += 4
                    else:
                        put(a, out, residual, t * a.n + r, dot1(w, tail, a.cols, x, stride)[0], add)
                        t += 1

    return run
