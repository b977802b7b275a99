"""Few tokens: unpack a row of weights in registers, multiply it with each of them; the file is read once, in order.

Codes go into lanes (see lanes.py), once for all tokens: then a token costs four dot products, one conversion and two
or three multiply-adds for 256 columns. Whatever the number of tokens, each of them goes through the same operations, so
that a result has the same bits in any company.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...jit import Kernel, device, kernel_family
from ...simd.dot import dot
from ...simd.emit import F32, I8, I32, I64, Emitter, Vec
from ...simd.table import f32_view, plus
from ...simd.types import address, emitted
from ..share import chunk_of, is_few, next_chunk, rows_of
from .table import FLOATS, QUANTIZED
from .weights import Block32, WeightType, single_block

# Bytes ahead of the product at which the row stream is asked for. Rows follow each other in the file, so this crosses
# into the next rows. From memory, two threads (Sapphire Rapids, plain reads 36 GB/s): Q8_0 29.3 GB/s, Q4_0 25.6 at 2048
# columns; 1,536 bytes and 4,608 are 2 to 10 % slower, and without it one thread reads half as fast.
PREFETCH = 3072
SIZES = (1, 4, 8)  # tokens multiplied with a row while it is in registers
_FLOAT_TOKENS = 4  # of float weights, whose activations are four times as large: more of them leave the first-level cache

# Addresses of one activation row: codes, scale, centre, sum, neg (quantized), or x first (float).
PARTS = 5
_ACTIVATION = types.UniTuple(address, PARTS)


class _RowDot:
    """Emits the products of one row of weights with `tokens` rows of int8 activations."""

    def __init__(self, e: Emitter, kind: type[WeightType], tokens: int) -> None:
        self.e, self.kind, self.tokens = e, kind, tokens

    def emit(self, w: ir.Value, cols: ir.Value, x: list[ir.Value], strides: list[ir.Value]) -> list[Vec]:
        e, kind = self.e, self.kind
        supers = e.b.udiv(cols, ir.Constant(I64, 256))
        # Per token: one accumulator of products, one of what depends on sums of codes or of activations only.
        start = [e.zero(F32, 16)] * (2 * self.tokens)

        def body(i: ir.Value, acc: list[Vec]) -> list[Vec]:
            n_bytes = 256 // kind.block * kind.block_bytes
            at = e.index(w, i, n_bytes)
            for line in range(0, n_bytes, 64):
                e.prefetch(at, PREFETCH + line)
            return self._super(at, i, x, strides, acc)

        acc = e.loop(supers, start, body)
        # The last additions are rounded as written: every kernel that inlines this product gets the same bits.
        totals = [e.plus(acc[2 * t], acc[2 * t + 1]) for t in range(self.tokens)]
        if issubclass(kind, Block32):
            nothing = e.zero(F32, 8)
            tails = self._tail(kind, w, cols, supers, x, strides)
            totals = [e.plus(v, e.shuffle(tail, nothing, range(16))) for v, tail in zip(totals, tails, strict=True)]
        return [e.sum(v) for v in totals]

    def _row(self, x: ir.Value, stride: ir.Value, t: int) -> ir.Value:
        return self.e.b.add(x, self.e.b.mul(stride, ir.Constant(I64, t))) if t else x

    def _super(
        self, at: ir.Value, i: ir.Value, x: list[ir.Value], strides: list[ir.Value], acc: list[Vec]
    ) -> list[Vec]:
        e, kind, offset = self.e, self.kind, self.kind.offset or 0
        u = kind.unpack(e, at)
        lanes = [k * 16 // kind.group for k in range(16)]
        scale, bias = u.scale.take(lanes), None if u.bias is None else u.bias.take(lanes)
        codes = _in_lanes(u.codes)
        ones = e.const(I8, [1] * 64)
        sums = e.like(e.zero(I32, 16), -16 * offset)
        for vector in codes:
            sums = dot(e, sums, vector, ones, kind.bits)
        weights = e.to_float(sums) * scale  # the sum of a lane's weights, without their biases
        result = []
        for t in range(self.tokens):
            x_codes, dx, centre, x_sum, neg = (self._row(x[k], strides[k], t) for k in range(PARTS))
            total = e.zero(I32, 16)
            if offset:
                total = e.load(I32, 16, e.index(neg, i, 64)) << offset.bit_length() - 1
            for m, vector in enumerate(codes):
                total = dot(e, total, vector, e.load(I8, 64, e.index(x_codes, i, 256), 64 * m), kind.bits)
            factor = scale * e.load(F32, 16, e.index(dx, i, 64))
            rest = e.fma(weights, e.load(F32, 16, e.index(centre, i, 64)), acc[2 * t + 1])
            if bias is not None:
                rest = e.fma(bias, e.load(F32, 16, e.index(x_sum, i, 64)), rest)
            result += [e.fma(e.to_float(total), factor, acc[2 * t]), rest]
        return result

    def _tail(
        self, kind: type[Block32], w: ir.Value, cols: ir.Value, supers: ir.Value, x: list[ir.Value],
        strides: list[ir.Value],
    ) -> list[Vec]:  # fmt: skip
        """The blocks of 32 after the last whole 256 columns: 8 sums for each token."""
        e = self.e
        done = e.b.mul(supers, ir.Constant(I64, 8))
        rest = e.b.sub(e.b.udiv(cols, ir.Constant(I64, 32)), done)

        def body(i: ir.Value, acc: list[Vec]) -> list[Vec]:
            block = e.b.add(done, i)
            at = e.index(w, block, kind.block_bytes)
            e.prefetch(at, PREFETCH)
            weights, scale, bias = single_block(kind, e, at)
            sums = e.to_float(dot(e, e.zero(I32, 8), weights, e.const(I8, [1] * 32), kind.bits)) * scale
            result = []
            for t in range(self.tokens):
                codes, dx, centre, x_sum, _ = (self._row(x[k], strides[k], t) for k in range(PARTS))
                xq = e.load(I8, 32, e.index(codes, block, 32))
                products = e.to_float(dot(e, e.zero(I32, 8), weights, xq, kind.bits))
                one = e.fma(products, scale * e.load(F32, 0, e.index(dx, block, 8)), acc[t])
                one = e.fma(sums, e.splat(e.load(F32, 0, e.index(centre, block, 8)), 8), one)
                pair = e.load(F32, 2, e.index(x_sum, block, 8))  # of 16 columns each
                result.append(e.fma(bias, e.shuffle(pair, e.zero(F32, 2), [0, 1] + [2] * 6), one))
            return result

        return e.loop(rest, [e.zero(F32, 8)] * self.tokens, body)


def _in_lanes(codes: Sequence[Vec]) -> list[Vec]:
    """64 codes in each of four vectors, from column order into lanes: dword 4 l + m becomes lane l of vector m."""
    e = codes[0].e
    v = [e.bitcast(vector, I32, 16) for vector in codes]
    # Two vectors' dwords m, then their dwords m + 1.
    pairs = [
        [e.shuffle(v[k], v[k + 1], [4 * lane + n for n in (m, m + 1) for lane in range(8)]) for m in (0, 2)]
        for k in (0, 2)
    ]
    low, high = [*range(8), *range(16, 24)], [*range(8, 16), *range(24, 32)]
    return [
        e.bitcast(e.shuffle(pairs[0][m], pairs[1][m], half), I8, 64) for m in (0, 1) for half in (low, high)
    ]


def quantized_dot(kind: type[WeightType], tokens: int) -> Any:
    """f(w, cols, x addresses, x strides) -> tuple of `tokens` float32: one row of weights with `tokens` activations."""

    @emitted(types.UniTuple(types.float32, tokens), address, types.int64, _ACTIVATION, _ACTIVATION)
    def dot(e: Emitter, w: Vec, cols: Vec, x: Vec, strides: Vec) -> Vec:
        parts = [[e.b.extract_value(v.ll, i) for i in range(PARTS)] for v in (x, strides)]
        return _pack(e, _RowDot(e, kind, tokens).emit(w.ll, cols.ll, *parts))

    return dot


def float_dot(load: Any, size: int, tokens: int) -> Any:
    """The same for float weights: x[0] is the address of float32 activations."""

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

    @emitted(types.UniTuple(types.float32, tokens), address, types.int64, _ACTIVATION, _ACTIVATION)
    def dot(e: Emitter, w: Vec, cols: Vec, x: Vec, strides: Vec) -> Vec:
        x0, stride = e.b.extract_value(x.ll, 0), e.b.extract_value(strides.ll, 0)
        rows = [e.b.add(x0, e.b.mul(stride, ir.Constant(I64, t))) for t in range(tokens)]
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


@device
def strides_of(cols, is_float):  # type: ignore[no-untyped-def]
    """Bytes from one row of activations to the next, for each of the PARTS."""
    if is_float != 0:
        none = np.uint64(0)
        return np.uint64(4 * cols), none, none, none, none
    eight = np.uint64(8 * (cols // 32))
    return np.uint64(cols), eight, eight, eight, eight


@device
def activation_of(a, row, strides, is_float):  # type: ignore[no-untyped-def]
    """The addresses of the parts of a row."""
    n = np.uint64(row)
    if is_float != 0:
        return a.x + n * strides[0], a.x, a.x, a.x, a.x
    return (
        a.codes + n * strides[0], a.scale + n * strides[1], a.centre + n * strides[2], a.sum + n * strides[3],
        a.neg + n * strides[4],
    )  # fmt: skip


@kernel_family("linear_rows")
def linear_rows(name: str) -> Kernel:
    """out[t, r] = residual[t, r] + (x[t] . w[r] + bias[r]) for all tokens; each thread reads consecutive rows."""
    dot1, dot4, dot8 = dots_of(name)
    is_float = np.int64(name in FLOATS)

    @device
    def put(a, out, residual, i, value, add):  # type: ignore[no-untyped-def]
        one = plus(value, add)
        out[i] = plus(residual[i], one) if a.residual != 0 else one

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        tokens = rows_of(a, step)
        if not is_few(tokens, a, step):
            return
        strides = strides_of(a.cols, is_float)
        out, residual = f32_view(a.out, tokens * a.n), f32_view(a.residual, tokens * a.n)
        bias = f32_view(a.bias, a.n)
        chunk, turn = chunk_of(a.n, a.row_bytes, nth), np.int64(0)
        while True:
            start, stop, turn = next_chunk(a.queue, a.n, chunk, turn, tid, nth)
            if start == stop:
                break
            for r in range(start, stop):
                w = a.w + np.uint64(r * a.row_bytes)
                add = bias[r] if a.bias != 0 else np.float32(0.0)
                t = 0
                while t < tokens:
                    x = activation_of(a, t, strides, is_float)
                    if t + 8 <= tokens:
                        y8 = dot8(w, a.cols, x, strides)
                        for k in range(8):
                            put(a, out, residual, (t + k) * a.n + r, y8[k], add)
                        t += 8
                    elif t + 4 <= tokens:
                        y4 = dot4(w, a.cols, x, strides)
                        for k in range(4):
                            put(a, out, residual, (t + k) * a.n + r, y4[k], add)
                        t += 4
                    else:
                        put(a, out, residual, t * a.n + r, dot1(w, a.cols, x, strides)[0], add)
                        t += 1

    return run
