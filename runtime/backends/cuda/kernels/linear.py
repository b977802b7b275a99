"""Products with weights for few rows of activations: each warp takes two rows of the weight at once (products.py).
They are read once for `tokens` rows of activations.

    rows(type, tokens)          out = residual + (x times the transpose of w + bias)
    together(type, tokens)      the same for up to three weights at once, without a residual
    gated(type, tokens, act)    out = act(x times gate + its bias) * (x times up + its bias)
    experts(type)               each row of x with the matrix of its expert
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..package import cuda
from ..simt import device
from .activations import ACTIVATIONS
from .products import FLOAT_WEIGHTS, FLOATS, ROWS, two_rows

__all__ = ["FLOATS", "FLOAT_WEIGHTS", "ROWS", "experts", "gated", "rows", "together"]


@cache
def rows(name: str, tokens: int) -> Any:
    """w uint8 [n * row_bytes]; x int32 [m * 8 * groups] (quantize.py), or float32 [m * groups] for weights of floats.

    bias float32 [n] and residual float32 [m * n] are there if the flags say so. out float32 [m * n].
    """
    multiply, sizes = two_rows(name, tokens), ROWS * tokens

    @cuda.jit
    def linear_rows(  # type: ignore[no-untyped-def]
        w, row_bytes, table, n, groups, x, scale, sums, m, bias, has_bias, residual, has_residual, out
    ):
        acc = cuda.local.array(sizes, np.float32)
        first = cuda.blockIdx.y * tokens
        last = m - 1 - first
        begin, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
        for row in range(ROWS * begin, n, ROWS * step):
            at, next_at = np.int64(row) * row_bytes, np.int64(min(row + 1, n - 1)) * row_bytes
            multiply(w, at, w, next_at, row_bytes, table, x, scale, sums, first, groups, last, acc)
            if cuda.threadIdx.x == 0:
                for i in range(sizes):  # a constant, so that sums stay in registers
                    own, t = row + i // tokens, i % tokens
                    if own < n and t <= last:
                        value, to = acc[i], (first + t) * n + own
                        if has_bias:
                            value += bias[own]
                        if has_residual:
                            value += residual[to]
                        out[to] = value

    return linear_rows


@device
def _place(number, n0, n1):  # type: ignore[no-untyped-def]
    """(which of the weights a row is of, its number there)"""
    if number < n0:
        return 0, number
    if number < n0 + n1:
        return 1, number - n0
    return 2, number - n0 - n1


@cache
def together(name: str, tokens: int) -> Any:
    """Up to three weights of one type, for the same activations; one that is not there has n of 0. See `rows`."""
    multiply, sizes = two_rows(name, tokens), ROWS * tokens

    @cuda.jit
    def linear_together(  # type: ignore[no-untyped-def]
        w0, n0, bias0, has0, out0, w1, n1, bias1, has1, out1, w2, n2, bias2, has2, out2, row_bytes, table, groups, x,
        scale, sums, m,
    ):  # fmt: skip
        acc = cuda.local.array(sizes, np.float32)
        first, total = cuda.blockIdx.y * tokens, n0 + n1 + n2
        last = m - 1 - first
        begin, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
        for number in range(ROWS * begin, total, ROWS * step):
            which, row = _place(number, n0, n1)
            other, next_row = _place(min(number + 1, total - 1), n0, n1)
            w = w0 if which == 0 else w1 if which == 1 else w2
            next_w = w0 if other == 0 else w1 if other == 1 else w2
            at, next_at = np.int64(row) * row_bytes, np.int64(next_row) * row_bytes
            multiply(w, at, next_w, next_at, row_bytes, table, x, scale, sums, first, groups, last, acc)
            if cuda.threadIdx.x == 0:
                for i in range(ROWS):
                    if number + i < total:
                        if (which, other)[i] == 0:
                            n, bias, has_bias, out = n0, bias0, has0, out0
                        elif (which, other)[i] == 1:
                            n, bias, has_bias, out = n1, bias1, has1, out1
                        else:
                            n, bias, has_bias, out = n2, bias2, has2, out2
                        own = (row, next_row)[i]
                        for t in range(tokens):
                            if t <= last:
                                value = acc[i * tokens + t]
                                out[(first + t) * n + own] = value + bias[own] if has_bias else value

    return linear_together


@cache
def gated(name: str, tokens: int, act: str) -> Any:
    """gate and up have one type and one shape: a warp takes a row of each. See `rows`."""
    multiply, activation, sizes = two_rows(name, tokens), ACTIVATIONS[act], ROWS * tokens

    @cuda.jit
    def linear_glu(  # type: ignore[no-untyped-def]
        gate, up, row_bytes, table, n, groups, x, scale, sums, m, gate_bias, has_gate_bias, up_bias, has_up_bias, out
    ):
        acc = cuda.local.array(sizes, np.float32)
        first = cuda.blockIdx.y * tokens
        last = m - 1 - first
        begin, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
        for row in range(begin, n, step):
            at = np.int64(row) * row_bytes
            multiply(gate, at, up, at, row_bytes, table, x, scale, sums, first, groups, last, acc)
            if cuda.threadIdx.x == 0:
                for t in range(tokens):
                    if t <= last:
                        a, b = acc[t], acc[tokens + t]
                        if has_gate_bias:
                            a += gate_bias[row]
                        if has_up_bias:
                            b += up_bias[row]
                        out[(first + t) * n + row] = activation(a) * b

    return linear_glu


@cache
def experts(name: str) -> Any:
    """Row i of out [m, n] is that of x (or, if x has a row a token, row i // n_used) times matrix ids[i] of w."""
    multiply = two_rows(name, 1)

    @cuda.jit
    def expert_rows(  # type: ignore[no-untyped-def]
        w, row_bytes, table, n, groups, x, scale, sums, ids, n_used, shared, bias, has_bias, out
    ):
        acc = cuda.local.array(ROWS, np.float32)
        slot = cuda.blockIdx.x
        expert = np.int64(ids[slot])
        source = slot // n_used if shared else slot
        begin, step = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.y * cuda.blockDim.y
        for row in range(ROWS * begin, n, ROWS * step):
            at, next_at = (expert * n + row) * row_bytes, (expert * n + min(row + 1, n - 1)) * row_bytes
            multiply(w, at, w, next_at, row_bytes, table, x, scale, sums, source, groups, 0, acc)
            if cuda.threadIdx.x == 0:
                for i in range(ROWS):
                    if row + i < n:
                        value = acc[i]
                        if has_bias:
                            value += bias[expert * n + row + i]
                        out[slot * n + row + i] = value

    return expert_rows
