"""Products with weights of F16 and BF16 for many rows of activations, on tensor cores (see fragments.py).

Both kinds of weights are exact in the eleven bits that tensor cores multiply of a float32. Activations are not: each is
taken as the sum of two numbers that are, and multiplied twice, which keeps 22 of its 24 bits. Tensor cores round sums
toward zero: theirs go over 32 columns only, and these are added as all float32 are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..package import cuda
from ..simt import WARP, bits_of, float_at, float_of, products_of_floats, word_at
from .fragments import ACROSS, DOWN, ROOM, ROWS, SIDES, TOKENS, WARPS, clear, store
from .products import FLOAT_WEIGHTS

TYPES = frozenset({"F16", "BF16"})
COLUMNS = WARP  # at a time, one for a lane to load
LINE = COLUMNS + 4  # words of a row in shared memory: 4 more, so that the words of a fragment lie in 32 banks
UPPER = -1 << 13  # the bits of a float32 that are multiplied
# Sizes of shared memory: Numba takes names of constants only.
_LEFT, _RIGHT, _SUMS = max(ROOM, ROWS * LINE), TOKENS * LINE, 4 * ACROSS


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
        part = cuda.local.array(_SUMS, np.float32)
        lane, warp = np.int32(cuda.threadIdx.x), np.int32(cuda.threadIdx.y)
        quad, member = lane >> 2, lane & 3
        first_row, first_token = cuda.blockIdx.x * ROWS, cuda.blockIdx.y * TOKENS
        own_row, own_token = np.int32(warp // SIDES * DOWN * 16 + quad), np.int32(warp % SIDES * ACROSS * 8)
        left_at, right_at = np.int32(own_row * LINE + member), np.int32((own_token + quad) * LINE + member)
        clear(acc)
        for begin in range(0, cols, COLUMNS):
            column = begin + lane
            cuda.syncthreads()
            for r in range(warp, np.int32(ROWS), np.int32(WARPS)):
                row = np.int64(min(first_row + r, n - 1)) * row_bytes
                left[r * LINE + lane] = bits_of(weight(w, row, column)) if column < cols else np.int32(0)
            for t in range(warp, np.int32(TOKENS), np.int32(WARPS)):
                value = np.float32(0.0)
                if column < cols:
                    value = float_at(x, min(first_token + t, m - 1) * cols + column)
                upper = np.int32(bits_of(value) & UPPER)
                right[t * LINE + lane] = upper
                rest[t * LINE + lane] = bits_of(value - float_of(upper))
            cuda.syncthreads()
            for i in range(DOWN):
                for k in range(4 * ACROSS):
                    part[k] = np.float32(0.0)
                for step in range(0, COLUMNS, 8):
                    at = np.int32(left_at + 16 * i * LINE + step)
                    lower = at + 8 * LINE
                    a = (word_at(left, at), word_at(left, lower), word_at(left, at + 4), word_at(left, lower + 4))
                    for j in range(ACROSS):
                        word = np.int32(right_at + 8 * j * LINE + step)
                        made = (part[4 * j], part[4 * j + 1], part[4 * j + 2], part[4 * j + 3])
                        made = products_of_floats(a, (word_at(rest, word), word_at(rest, word + 4)), made)
                        made = products_of_floats(a, (word_at(right, word), word_at(right, word + 4)), made)
                        for e in range(4):
                            part[4 * j + e] = made[e]
                for k in range(4 * ACROSS):
                    acc[i, k // 4, k % 4] += part[k]
        store(acc, left, n, m, bias, has_bias, residual, has_residual, out)

    return linear_tensor_floats
