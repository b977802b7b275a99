"""Few tokens: unpack a row of weights in registers, multiply it with each of them; the file is read once, in order."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...jit import Kernel, kernel_family
from ...simd.dot import dot
from ...simd.emit import F32, I8, I32, I64, Emitter, Vec
from ...simd.table import f32_view, plus
from ...simd.types import address, emitted
from ..share import chunk_of, is_few, next_chunk, rows_of
from .table import FLOATS, QUANTIZED
from .weights import Block32, WeightType, single_block

# Bytes ahead of the product at which the row stream is asked for. Rows follow each other in the file, so this crosses
# into the next row. From memory, one thread (Sapphire Rapids, plain reads 15 GB/s): Q4_1 6.1 -> 11.3 GB/s at 576
# columns, 9.4 -> 12.0 at 4096; 512 and 4096 bytes gain less.
PREFETCH = 1536
TOKENS = 4  # tokens multiplied with a row while it is in registers

# Addresses of one activation row: codes, scale, zero, sum32, sum16 (quantized), or x first (float).
PARTS = 5
_ACTIVATION = types.UniTuple(address, PARTS)


class _RowDot:
    """Emits the products of one row of weights with `tokens` rows of int8 activations."""

    def __init__(self, e: Emitter, kind: type[WeightType], tokens: int) -> None:
        self.e, self.kind, self.tokens = e, kind, tokens

    def emit(self, w: ir.Value, cols: ir.Value, x: list[ir.Value], strides: list[ir.Value]) -> list[Vec]:
        e, kind = self.e, self.kind
        supers = e.b.udiv(cols, ir.Constant(I64, 256))
        # Per token: two accumulators to hide the latency of the addition, and one for the biases.
        start = [e.zero(F32, 16), e.zero(F32, 16), e.zero(F32, 256 // kind.group)] * self.tokens

        def body(i: ir.Value, acc: list[Vec]) -> list[Vec]:
            n_bytes = 256 // kind.block * kind.block_bytes
            at = e.index(w, i, n_bytes)
            for line in range(0, n_bytes, 64):
                e.prefetch(at, PREFETCH + line)
            return self._super(at, i, x, strides, acc)

        acc = e.loop(supers, start, body)
        # The last additions are rounded as written: every kernel that inlines this product gets the same bits.
        totals = [e.plus(e.sum(acc[3 * t] + acc[3 * t + 1]), e.sum(acc[3 * t + 2])) for t in range(self.tokens)]
        if issubclass(kind, Block32):
            totals = self._tail(kind, w, cols, supers, x, strides, totals)
        return totals

    def _row(self, x: ir.Value, stride: ir.Value, t: int) -> ir.Value:
        return self.e.b.add(x, self.e.b.mul(stride, ir.Constant(I64, t))) if t else x

    def _super(
        self, at: ir.Value, i: ir.Value, x: list[ir.Value], strides: list[ir.Value], acc: list[Vec]
    ) -> list[Vec]:
        e, kind = self.e, self.kind
        u = kind.unpack(e, at)
        bias = kind.bias_of(e, u.scale, u.bias)
        per = 64 // kind.group  # groups in a vector of 64 codes
        result = []
        for t in range(self.tokens):
            codes, scale, zero, sum32, sum16 = (self._row(x[k], strides[k], t) for k in range(PARTS))
            zeros = e.load(I32, 8, e.index(zero, i, 32))
            dx = e.load(F32, 8, e.index(scale, i, 32))
            sums = e.load(F32, 8, e.index(sum32, i, 32)) if kind.group == 32 else e.load(F32, 16, e.index(sum16, i, 64))
            if kind.group == 16:
                dx = dx.take([k // 2 for k in range(16)])
            factor = u.scale * dx
            sums_acc = [acc[3 * t], acc[3 * t + 1]]
            for j in range(4):
                xq = e.load(I8, 64, e.index(codes, i, 256), 64 * j)
                shift = e.bitcast(zeros.take([2 * j] * 8 + [2 * j + 1] * 8), I8, 64)
                total = dot(e, e.zero(I32, 16), u.codes[j], shift, kind.bits)
                products = e.to_float(dot(e, total, u.codes[j], xq, kind.bits))
                lanes = [j * per + lane * per // 16 for lane in range(16)]
                sums_acc[j & 1] = e.fma(products, factor.take(lanes), sums_acc[j & 1])
            result += [*sums_acc, e.fma(bias, sums, acc[3 * t + 2])]
        return result

    def _tail(
        self, kind: type[Block32], w: ir.Value, cols: ir.Value, supers: ir.Value, x: list[ir.Value],
        strides: list[ir.Value], totals: list[Vec],
    ) -> list[Vec]:  # fmt: skip
        """The blocks of 32 after the last whole 256 columns."""
        e = self.e
        done = e.b.mul(supers, ir.Constant(I64, 8))
        rest = e.b.sub(e.b.udiv(cols, ir.Constant(I64, 32)), done)

        def body(i: ir.Value, acc: list[Vec]) -> list[Vec]:
            block = e.b.add(done, i)
            weights, scale, bias = single_block(kind, e, e.index(w, block, kind.block_bytes))
            result = []
            for t in range(self.tokens):
                codes, dx, zero, sum32, _ = (self._row(x[k], strides[k], t) for k in range(PARTS))
                xq = e.load(I8, 32, e.index(codes, block, 32))
                shift = e.bitcast(e.splat(e.load(I32, 0, e.index(zero, block, 4)), 8), I8, 32)
                total = dot(e, e.zero(I32, 8), weights, shift, kind.bits)
                products = e.to_float(dot(e, total, weights, xq, kind.bits))
                factor = scale * e.load(F32, 0, e.index(dx, block, 4))
                one = e.fma(products, factor, acc[t])
                correction = bias.lane(0) * e.load(F32, 0, e.index(sum32, block, 4))
                first = e.b.insert_element(e.zero(F32, 8).ll, correction.ll, ir.Constant(I32, 0))
                result.append(one + Vec(e, first))
            return result

        tails = e.loop(rest, [e.zero(F32, 8)] * self.tokens, body)
        return [e.plus(total, e.sum(tail)) for total, tail in zip(totals, tails, strict=True)]


def quantized_dot(kind: type[WeightType], tokens: int) -> Any:
    """f(w, cols, x addresses, x strides) -> tuple of `tokens` float32: one row of weights with `tokens` activations."""

    @emitted(types.UniTuple(types.float32, tokens), address, types.int64, _ACTIVATION, _ACTIVATION)
    def dot(e: Emitter, w: Vec, cols: Vec, x: Vec, strides: Vec) -> Vec:
        parts = [[e.b.extract_value(v.ll, i) for i in range(PARTS)] for v in (x, strides)]
        return _pack(e, _RowDot(e, kind, tokens).emit(w.ll, cols.ll, *parts))

    return dot


def float_dot(load: Any, size: int, tokens: int) -> Any:
    """The same for float weights: x[0] is the address of float32 activations."""

    @emitted(types.UniTuple(types.float32, tokens), address, types.int64, _ACTIVATION, _ACTIVATION)
    def dot(e: Emitter, w: Vec, cols: Vec, x: Vec, strides: Vec) -> Vec:
        x0, stride = e.b.extract_value(x.ll, 0), e.b.extract_value(strides.ll, 0)
        rows = [e.b.add(x0, e.b.mul(stride, ir.Constant(I64, t))) for t in range(tokens)]
        vectors = e.b.udiv(cols.ll, ir.Constant(I64, 16))

        def body(i: ir.Value, acc: list[Vec]) -> list[Vec]:
            at = e.index(w.ll, i, 16 * size)
            e.prefetch(at, PREFETCH)
            weights = load(e, at, 16)
            return [e.fma(weights, e.load(F32, 16, e.index(row, i, 64)), a) for row, a in zip(rows, acc, strict=True)]

        totals = [e.sum(a) for a in e.loop(vectors, [e.zero(F32, 16)] * tokens, body)]
        done = e.b.mul(vectors, ir.Constant(I64, 16))

        def one(i: ir.Value, acc: list[Vec]) -> list[Vec]:
            k = e.b.add(done, i)
            # Two copies of one element: half and bfloat16 are widened as vectors.
            weight = load(e, e.index(w.ll, k, size), 1).lane(0)
            return [a + weight * e.load(F32, 0, e.index(row, k, 4)) for row, a in zip(rows, acc, strict=True)]

        return _pack(e, e.loop(e.b.sub(cols.ll, done), totals, one))

    return dot


def _pack(e: Emitter, values: list[Vec]) -> Vec:
    packed = ir.Constant(ir.ArrayType(F32, len(values)), ir.Undefined)
    for i, value in enumerate(values):
        packed = e.b.insert_value(packed, value.ll, i)
    return Vec(e, packed)


def dots_of(name: str) -> tuple[Any, Any]:
    """The products with one token and with TOKENS tokens, for a type by name."""
    if name in QUANTIZED:
        return tuple(quantized_dot(QUANTIZED[name], n) for n in (1, TOKENS))  # type: ignore[return-value]
    kind = FLOATS[name]
    return tuple(float_dot(kind.load, kind.size, n) for n in (1, TOKENS))  # type: ignore[return-value]


@kernel_family("linear_rows")
def linear_rows(name: str) -> Kernel:
    """out[t, r] = residual[t, r] + (x[t] . w[r] + bias[r]) for all tokens; each thread reads consecutive rows."""
    dot1, dot4 = dots_of(name)
    is_float = np.int64(name in FLOATS)

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        tokens = rows_of(a, step)
        if not is_few(tokens, a, step):
            return
        groups = np.uint64(a.cols // 32)
        if is_float:
            none = np.uint64(0)
            strides = (np.uint64(4 * a.cols), none, none, none, none)
        else:
            four = np.uint64(4) * groups
            strides = (np.uint64(a.cols), four, four, four, np.uint64(8) * groups)
        out, residual = f32_view(a.out, tokens * a.n), f32_view(a.residual, tokens * a.n)
        bias = f32_view(a.bias, a.n)
        chunk, turn = chunk_of(a.n, a.row_bytes, nth), np.int64(0)
        while True:
            start, stop, turn = next_chunk(a.queue, a.n, chunk, turn, tid, nth)
            if start == stop:
                break
            for r in range(start, stop):
                w = a.w + np.uint64(r * a.row_bytes)
                add = np.float32(0.0)
                if a.bias != 0:
                    add = bias[r]
                t = 0
                while t < tokens:
                    n = np.uint64(t)
                    if is_float:
                        x = (a.x + n * strides[0], a.x, a.x, a.x, a.x)
                    else:
                        x = (
                            a.codes + n * strides[0], a.scale + n * strides[1], a.zero + n * strides[2],
                            a.sum32 + n * strides[3], a.sum16 + n * strides[4],
                        )  # fmt: skip
                    if t + TOKENS <= tokens:
                        y = dot4(w, a.cols, x, strides)
                        for k in range(TOKENS):
                            i, one = (t + k) * a.n + r, plus(y[k], add)
                            out[i] = plus(residual[i], one) if a.residual != 0 else one
                        t += TOKENS
                    else:
                        i, one = t * a.n + r, plus(dot1(w, a.cols, x, strides)[0], add)
                        out[i] = plus(residual[i], one) if a.residual != 0 else one
                        t += 1

    return run

