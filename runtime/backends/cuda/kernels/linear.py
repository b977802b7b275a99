"""Products with weights for few rows of activations: each warp takes a row of the weight.

The lanes of a warp copy the blocks of 32 groups of 32 weights into shared memory, 16 bytes a load, wherever a row
begins; then each takes a group. It is unpacked to int8 in registers and multiplied with activations of int8
(kernels/quantize.py): these products are whole numbers until they meet their scales. A row is read once for `tokens`
rows of activations.

    rows(type, tokens)          out = residual + (x times the transpose of w + bias)
    together(type, tokens)      the same for up to three weights at once, without a residual
    gated(type, tokens, act)    out = act(x times gate + its bias) * (x times up + its bias)
    experts(type)               each row of x with the matrix of its expert

Weights of 16 and 32 bits are multiplied with float32 activations; then `scale` and `sums` are not looked at, and the
"group" that a lane takes is a single weight.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .....formats.gguf.types import GGMLType
from ..package import cuda
from ..simt import (
    WARP,
    WARPS,
    device,
    dp4a,
    float_of,
    four,
    half,
    meet,
    put_four,
    shared_bytes,
    short,
    warp_sum,
    word,
    wrapped,
)  # fmt: skip
from ..weights import UNPACK
from .activations import ACTIVATIONS


def _group_product(name: str, tokens: int) -> Any:
    """f(w, row, group, table, x, word, step, scale, sums, first, stride, last, at, acc): adds a group's products to
    acc[tokens].

    Row t of the activations begins at group (first + min(t, last)) * stride. In it this group's scale is number `at`;
    its words are `step` apart, from `word` on.
    """
    unpack = UNPACK[name]

    @device
    def multiply(w, row, group, table, x, word, step, scale, sums, first, stride, last, at, acc):  # type: ignore[no-untyped-def]
        codes = cuda.local.array(8, np.int32)
        scales = cuda.local.array(4, np.float32)
        unpack(w, row, group, table, codes, scales)
        for t in range(tokens):
            before = (first + min(t, last)) * stride
            own, mine = before + at, 8 * before + word
            low, high = np.int32(0), np.int32(0)
            for j in range(4):
                low = dp4a(codes[j], x[mine + j * step], low)
                high = dp4a(codes[j + 4], x[mine + (j + 4) * step], high)
            product = scale[own] * (scales[0] * np.float32(low) + scales[1] * np.float32(high))
            acc[t] += product + scales[2] * sums[2 * own] + scales[3] * sums[2 * own + 1]

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
    """f(w, row, table, x, scale, sums, first, stride, last, acc): the sums over a whole row, in all lanes, in acc."""
    return (_float_rows if name in FLOATS else _staged_rows)(name, tokens)


def _float_rows(name: str, tokens: int) -> Any:
    multiply = _float_product(name, tokens)

    @device
    def row_product(w, row, table, x, scale, sums, first, stride, last, acc):  # type: ignore[no-untyped-def]
        for t in range(tokens):
            acc[t] = np.float32(0.0)
        for i in range(cuda.threadIdx.x, stride, WARP):
            multiply(w, row, i, table, x, scale, sums, first, stride, last, acc)
        for t in range(tokens):
            acc[t] = warp_sum(acc[t])

    return row_product


def _staged_rows(name: str, tokens: int) -> Any:
    multiply = _group_product(name, tokens)
    chunk = GGMLType[name].row_bytes(32 * WARP)  # of 32 groups, which are whole blocks of every type
    room = (chunk + 15 + 15) // 16 * 16  # wherever it begins
    stage = shared_bytes(WARPS * room)

    @device
    def row_product(w, row, table, x, scale, sums, first, stride, last, acc):  # type: ignore[no-untyped-def]
        buffer, lane, own = stage(), cuda.threadIdx.x, cuda.threadIdx.y * room
        for t in range(tokens):
            acc[t] = np.float32(0.0)
        for begin in range(0, stride, WARP):
            count = min(WARP, stride - begin)
            start = row + begin // WARP * chunk
            shift = start % 16
            meet()  # what was there has been read
            for i in range(lane, (shift + count * chunk // WARP + 15) // 16, WARP):
                put_four(buffer, own + 16 * i, four(w, start - shift + 16 * i))
            meet()
            if lane < count:
                multiply(
                    buffer, own + shift, lane, table, x, 8 * begin + lane, count, scale, sums, first, stride, last,
                    begin + lane, acc,
                )  # fmt: skip
        for t in range(tokens):
            acc[t] = warp_sum(acc[t])

    return row_product


@cache
def rows(name: str, tokens: int) -> Any:
    """w uint8 [n * row_bytes]; x int32 [m * 8 * groups] (quantize.py), or float32 [m * groups] for weights of floats.

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
def together(name: str, tokens: int) -> Any:
    """Up to three weights of one type, for the same activations; one that is not there has n of 0. See `rows`."""
    row_product = _row_product(name, tokens)

    @cuda.jit
    def linear_together(  # type: ignore[no-untyped-def]
        w0, n0, bias0, has0, out0, w1, n1, bias1, has1, out1, w2, n2, bias2, has2, out2, row_bytes, table, groups, x,
        scale, sums, m,
    ):  # fmt: skip
        acc = cuda.local.array(tokens, np.float32)
        first = cuda.blockIdx.y * tokens
        last = m - 1 - first
        begin, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
        for number in range(begin, n0 + n1 + n2, step):
            if number < n0:
                w, row, n, bias, has_bias, out = w0, number, n0, bias0, has0, out0
            elif number < n0 + n1:
                w, row, n, bias, has_bias, out = w1, number - n0, n1, bias1, has1, out1
            else:
                w, row, n, bias, has_bias, out = w2, number - n0 - n1, n2, bias2, has2, out2
            row_product(w, np.int64(row) * row_bytes, table, x, scale, sums, first, groups, last, acc)
            if cuda.threadIdx.x == 0:
                for t in range(tokens):
                    if t <= last:
                        out[(first + t) * n + row] = acc[t] + bias[row] if has_bias else acc[t]

    return linear_together


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
