"""Products with weights for few rows of activations: each warp takes a row of the weight.

A group of 32 weights is unpacked to int8 in registers and multiplied with activations of int8 (kernels/quantize.py):
these products are whole numbers until they meet their scales. The lanes of a warp take groups in turn, so that
neighbouring lanes read neighbouring bytes; a row is read once for `tokens` rows of activations.

    rows(type, tokens)          out = residual + (x times the transpose of w + bias)
    gated(type, tokens, act)    out = act(x times gate + its bias) * (x times up + its bias)
    experts(type)               each row of x with the matrix of its expert

Weights of 16 and 32 bits are multiplied with float32 activations; then `scale` and `sums` are not looked at, and the
"group" that a lane takes is a single weight.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..package import cuda
from ..simt import WARP, device, dp4a, float_of, half, short, warp_sum, word, wrapped
from ..weights import UNPACK
from .activations import ACTIVATIONS


def _group_product(name: str, tokens: int) -> Any:
    """f(w, row, group, table, x, scale, sums, first, stride, last, acc): adds a group's products to acc[tokens].

    Row t of the activations begins at group (first + min(t, last)) * stride.
    """
    unpack = UNPACK[name]

    @device
    def multiply(w, row, group, table, x, scale, sums, first, stride, last, acc):  # type: ignore[no-untyped-def]
        codes = cuda.local.array(8, np.int32)
        scales = cuda.local.array(4, np.float32)
        unpack(w, row, group, table, codes, scales)
        for t in range(tokens):
            mine = (first + min(t, last)) * stride + group
            low, high = np.int32(0), np.int32(0)
            for j in range(4):
                low = dp4a(codes[j], x[8 * mine + j], low)
                high = dp4a(codes[j + 4], x[8 * mine + j + 4], high)
            product = scale[mine] * (scales[0] * np.float32(low) + scales[1] * np.float32(high))
            acc[t] += product + scales[2] * sums[2 * mine] + scales[3] * sums[2 * mine + 1]

    return multiply


def _float_product(name: str, tokens: int) -> Any:
    weight = FLOAT_WEIGHTS[name]

    @device
    def multiply(w, row, group, table, x, scale, sums, first, stride, last, acc):  # type: ignore[no-untyped-def]
        one = weight(w, row, group)
        for t in range(tokens):
            acc[t] += one * x[(first + min(t, last)) * stride + group]

    return multiply


@device
def _float32(w, row, i):  # type: ignore[no-untyped-def]
    return float_of(word(w, row + 4 * i))


@device
def _float16(w, row, i):  # type: ignore[no-untyped-def]
    return half(w, row + 2 * i)


@device
def _bfloat16(w, row, i):  # type: ignore[no-untyped-def]
    return float_of(wrapped(short(w, row + 2 * i) << 16))


FLOAT_WEIGHTS: dict[str, Any] = {"F32": _float32, "F16": _float16, "BF16": _bfloat16}
FLOATS = frozenset(FLOAT_WEIGHTS)


def _row_product(name: str, tokens: int) -> Any:
    """f(...) as above without a group: the sums over a whole row, in all lanes, in acc[tokens]."""
    multiply = (_float_product if name in FLOATS else _group_product)(name, tokens)

    @device
    def row_product(w, row, table, x, scale, sums, first, stride, last, acc):  # type: ignore[no-untyped-def]
        for t in range(tokens):
            acc[t] = np.float32(0.0)
        for group in range(cuda.threadIdx.x, stride, WARP):
            multiply(w, row, group, table, x, scale, sums, first, stride, last, acc)
        for t in range(tokens):
            acc[t] = warp_sum(acc[t])

    return row_product


@cache
def rows(name: str, tokens: int) -> Any:
    """w uint8 [n * row_bytes]; x int32 [m * 8 * groups] (int8 by four), or float32 [m * groups] for weights of floats.

    bias float32 [n] and residual float32 [m * n] are there if the flags say so. out float32 [m * n].
    """
    row_product = _row_product(name, tokens)

    @cuda.jit
    def linear_rows(  # type: ignore[no-untyped-def]
        w, row_bytes, table, n, groups, x, scale, sums, m, bias, has_bias, residual, has_residual, out
    ):
        acc = cuda.local.array(tokens, np.float32)
        first = cuda.blockIdx.y * tokens
        last = m - 1 - first
        begin, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
        for row in range(begin, n, step):
            row_product(w, np.int64(row) * row_bytes, table, x, scale, sums, first, groups, last, acc)
            if cuda.threadIdx.x == 0:
                for t in range(tokens):  # a constant, so that sums stay in registers
                    if t <= last:
                        at = (first + t) * n + row
                        value = acc[t]
                        if has_bias:
                            value += bias[row]
                        if has_residual:
                            value += residual[at]
                        out[at] = value

    return linear_rows


@cache
def gated(name: str, tokens: int, act: str) -> Any:
    """gate and up have one type and one shape; see `rows`."""
    row_product, activation = _row_product(name, tokens), ACTIVATIONS[act]

    @cuda.jit
    def linear_glu(  # type: ignore[no-untyped-def]
        gate, up, row_bytes, table, n, groups, x, scale, sums, m, gate_bias, has_gate_bias, up_bias, has_up_bias, out
    ):
        left = cuda.local.array(tokens, np.float32)
        right = cuda.local.array(tokens, np.float32)
        first = cuda.blockIdx.y * tokens
        last = m - 1 - first
        begin, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
        for row in range(begin, n, step):
            at = np.int64(row) * row_bytes
            row_product(gate, at, table, x, scale, sums, first, groups, last, left)
            row_product(up, at, table, x, scale, sums, first, groups, last, right)
            if cuda.threadIdx.x == 0:
                for t in range(tokens):
                    if t <= last:
                        a, b = left[t], right[t]
                        if has_gate_bias:
                            a += gate_bias[row]
                        if has_up_bias:
                            b += up_bias[row]
                        out[(first + t) * n + row] = activation(a) * b

    return linear_glu


@cache
def experts(name: str) -> Any:
    """Row i of out [m, n] is that of x (or, if x has a row a token, row i // n_used) times matrix ids[i] of w."""
    row_product = _row_product(name, 1)

    @cuda.jit
    def expert_rows(  # type: ignore[no-untyped-def]
        w, row_bytes, table, n, groups, x, scale, sums, ids, n_used, shared, bias, has_bias, out
    ):
        acc = cuda.local.array(1, np.float32)
        slot = cuda.blockIdx.y
        expert = np.int64(ids[slot])
        source = slot // n_used if shared else slot
        begin, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
        for row in range(begin, n, step):
            at = (expert * n + row) * row_bytes
            row_product(w, at, table, x, scale, sums, source, groups, 0, acc)
            if cuda.threadIdx.x == 0:
                value = acc[0]
                if has_bias:
                    value += bias[expert * n + row]
                out[slot * n + row] = value

    return expert_rows
