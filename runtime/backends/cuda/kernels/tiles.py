"""Products with weights for many rows of activations: each block makes a tile of the result.

Along the inner dimension a block goes 256 columns at a time. Its threads unpack that part of the weight's rows into
shared memory, with their scales, and copy the same part of the activations next to it; then each thread multiplies its
own few rows with its own few tokens. The arithmetic is that of products.py; what is unpacked is used for TOKENS tokens.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..package import SIMULATED, cuda
from ..simt import device, dp4a
from .panels import filler
from .products import FLOAT_WEIGHTS, FLOATS

ROWS, TOKENS, ACROSS, DOWN = (8, 8, 4, 4) if SIMULATED else (64, 64, 16, 16)  # of a tile; and threads of a block
OWN_ROWS, OWN_TOKENS = ROWS // DOWN, TOKENS // ACROSS
GROUPS = 8  # of 32 columns, at a time
LINE = 8 * GROUPS + 1  # words of a row in shared memory: one more, so that neighbouring rows begin in other banks
COLUMNS = 32  # of floats, at a time
# Sizes of shared memory: Numba takes names of constants only.
_LEFT, _LEFT_SCALES, _RIGHT, _RIGHT_SCALES = ROWS * LINE, ROWS * GROUPS * 4, TOKENS * LINE, TOKENS * GROUPS * 3
_LEFT_FLOATS, _RIGHT_FLOATS = ROWS * (COLUMNS + 1), TOKENS * (COLUMNS + 1)


@cache
def tiles(name: str) -> Any:
    """The arguments of `rows` in linear.py. Block (i, j) makes rows i of the weight and tokens j of the result."""
    return _float_tiles(name) if name in FLOATS else _tiles(name)


@device
def _clear(acc):  # type: ignore[no-untyped-def]
    for i in range(OWN_ROWS):
        for j in range(OWN_TOKENS):
            acc[i, j] = np.float32(0.0)


@device
def _store(acc, n, m, bias, has_bias, residual, has_residual, out):  # type: ignore[no-untyped-def]
    """The results of a thread to where they belong."""
    first_row, first_token = cuda.blockIdx.x * ROWS + cuda.threadIdx.y, cuda.blockIdx.y * TOKENS + cuda.threadIdx.x
    for i in range(OWN_ROWS):
        row = first_row + DOWN * i
        for j in range(OWN_TOKENS):
            token = first_token + ACROSS * j
            if row < n and token < m:
                value = acc[i, j]
                if has_bias:
                    value += bias[row]
                if has_residual:
                    value += residual[token * n + row]
                out[token * n + row] = value


def _tiles(name: str) -> Any:
    fill = filler(name, ROWS, TOKENS, GROUPS, LINE, 3)

    @cuda.jit
    def linear_tiles(  # type: ignore[no-untyped-def]
        w, row_bytes, table, n, groups, x, scale, sums, m, bias, has_bias, residual, has_residual, out
    ):
        left = cuda.shared.array(_LEFT, np.int32)
        left_scales = cuda.shared.array(_LEFT_SCALES, np.float32)
        right = cuda.shared.array(_RIGHT, np.int32)
        right_scales = cuda.shared.array(_RIGHT_SCALES, np.float32)
        acc = cuda.local.array((OWN_ROWS, OWN_TOKENS), np.float32)
        low = cuda.local.array((OWN_ROWS, OWN_TOKENS), np.int32)
        high = cuda.local.array((OWN_ROWS, OWN_TOKENS), np.int32)
        across, down = cuda.threadIdx.x, cuda.threadIdx.y
        _clear(acc)
        for begin in range(0, groups, GROUPS):
            count = min(GROUPS, groups - begin)
            cuda.syncthreads()
            fill(
                w, row_bytes, table, n, groups, x, scale, sums, m, begin, count, left, left_scales, right, right_scales
            )
            cuda.syncthreads()
            for g in range(count):
                for i in range(OWN_ROWS):
                    for j in range(OWN_TOKENS):
                        low[i, j] = 0
                        high[i, j] = 0
                for k in range(8 * g, 8 * g + 4):
                    for i in range(OWN_ROWS):
                        at = (down + DOWN * i) * LINE + k
                        for j in range(OWN_TOKENS):
                            own = (across + ACROSS * j) * LINE + k
                            low[i, j] = dp4a(left[at], right[own], low[i, j])
                            high[i, j] = dp4a(left[at + 4], right[own + 4], high[i, j])
                for i in range(OWN_ROWS):
                    at = (g * ROWS + down + DOWN * i) * 4
                    for j in range(OWN_TOKENS):
                        own = (g * TOKENS + across + ACROSS * j) * 3
                        product = left_scales[at] * np.float32(low[i, j])
                        product += left_scales[at + 1] * np.float32(high[i, j])
                        offset = left_scales[at + 2] * right_scales[own + 1]
                        offset += left_scales[at + 3] * right_scales[own + 2]
                        acc[i, j] += right_scales[own] * product + offset
        _store(acc, n, m, bias, has_bias, residual, has_residual, out)

    return linear_tiles


def _float_tiles(name: str) -> Any:
    weight = FLOAT_WEIGHTS[name]

    @cuda.jit
    def linear_tiles(  # type: ignore[no-untyped-def]
        w, row_bytes, table, n, cols, x, scale, sums, m, bias, has_bias, residual, has_residual, out
    ):
        left = cuda.shared.array(_LEFT_FLOATS, np.float32)
        right = cuda.shared.array(_RIGHT_FLOATS, np.float32)
        acc = cuda.local.array((OWN_ROWS, OWN_TOKENS), np.float32)
        across, down = cuda.threadIdx.x, cuda.threadIdx.y
        thread, threads = across + ACROSS * down, ACROSS * DOWN
        first_row, first_token = cuda.blockIdx.x * ROWS, cuda.blockIdx.y * TOKENS
        _clear(acc)
        for begin in range(0, cols, COLUMNS):
            count = min(COLUMNS, cols - begin)
            cuda.syncthreads()
            for task in range(thread, ROWS * count, threads):
                r, c = task // count, task % count
                row = np.int64(min(first_row + r, n - 1)) * row_bytes
                left[r * (COLUMNS + 1) + c] = weight(w, row, begin + c)
            for task in range(thread, TOKENS * count, threads):
                t, c = task // count, task % count
                right[t * (COLUMNS + 1) + c] = x[min(first_token + t, m - 1) * cols + begin + c]
            cuda.syncthreads()
            for c in range(count):
                for i in range(OWN_ROWS):
                    for j in range(OWN_TOKENS):
                        r, t = down + DOWN * i, across + ACROSS * j
                        acc[i, j] += left[r * (COLUMNS + 1) + c] * right[t * (COLUMNS + 1) + c]
        _store(acc, n, m, bias, has_bias, residual, has_residual, out)

    return linear_tiles
