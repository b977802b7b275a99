"""Products with weights of F16 and BF16 for many rows of activations, on tensor cores (see fragments.py).

Both kinds of weights are exact in the eleven bits that tensor cores multiply of a float32. Activations are not: each is
taken as the sum of two numbers that are, and multiplied twice, which keeps 22 of its 24 bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..package import cuda
from ..simt import WARP, bits_of, float_of, products_of_floats
from .fragments import ACROSS, DOWN, ROOM, ROWS, SIDES, TOKENS, WARPS, clear, store
from .linear import FLOAT_WEIGHTS

TYPES = frozenset({"F16", "BF16"})
COLUMNS = 32  # at a time
LINE = COLUMNS + 4  # words of a row in shared memory: 4 more, so that the words of a fragment lie in 32 banks
UPPER = -1 << 13  # the bits of a float32 that are multiplied
# Sizes of shared memory: Numba takes names of constants only.
_LEFT, _RIGHT = max(ROOM, ROWS * LINE), TOKENS * LINE


@cache
def tensor_floats(name: str) -> Any:
    """The arguments of `rows` in linear.py. Block (i, j) makes rows i of the weight and tokens j of the result."""
    weight = FLOAT_WEIGHTS[name]

    @cuda.jit
    def linear_tensor_floats(  # type: ignore[no-untyped-def]
        w, row_bytes, table, n, cols, x, scale, sums, m, bias, has_bias, residual, has_residual, out
    ):
        left = cuda.shared.array(_LEFT, np.int32)
        right = cuda.shared.array(_RIGHT, np.int32)
        rest = cuda.shared.array(_RIGHT, np.int32)
        acc = cuda.local.array((DOWN, ACROSS, 4), np.float32)
        lane, warp = cuda.threadIdx.x, cuda.threadIdx.y
        thread, threads = lane + WARP * warp, WARP * WARPS
        quad, member = lane // 4, lane % 4
        first_row, first_token = cuda.blockIdx.x * ROWS, cuda.blockIdx.y * TOKENS
        own_row, own_token = warp // SIDES * DOWN * 16 + quad, warp % SIDES * ACROSS * 8
        clear(acc)
        for begin in range(0, cols, COLUMNS):
            count = min(COLUMNS, cols - begin)
            cuda.syncthreads()
            for task in range(thread, ROWS * COLUMNS, threads):
                r, c = task // COLUMNS, task % COLUMNS
                row = np.int64(min(first_row + r, n - 1)) * row_bytes
                left[r * LINE + c] = bits_of(weight(w, row, begin + c)) if c < count else np.int32(0)
            for task in range(thread, TOKENS * COLUMNS, threads):
                t, c = task // COLUMNS, task % COLUMNS
                value = np.float32(0.0)
                if c < count:
                    value = x[min(first_token + t, m - 1) * cols + begin + c]
                upper = np.int32(bits_of(value) & UPPER)
                right[t * LINE + c] = upper
                rest[t * LINE + c] = bits_of(value - float_of(upper))
            cuda.syncthreads()
            for step in range(0, COLUMNS, 8):
                for i in range(DOWN):
                    at = (own_row + 16 * i) * LINE + step + member
                    lower = at + 8 * LINE
                    a = (left[at], left[lower], left[at + 4], left[lower + 4])
                    for j in range(ACROSS):
                        word = (own_token + 8 * j + quad) * LINE + step + member
                        made = (acc[i, j, 0], acc[i, j, 1], acc[i, j, 2], acc[i, j, 3])
                        made = products_of_floats(a, (rest[word], rest[word + 4]), made)
                        made = products_of_floats(a, (right[word], right[word + 4]), made)
                        for e in range(4):
                            acc[i, j, e] = made[e]
        store(acc, left, n, m, bias, has_bias, residual, has_residual, out)

    return linear_tensor_floats
