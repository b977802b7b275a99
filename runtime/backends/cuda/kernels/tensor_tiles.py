"""Products with weights for many rows of activations, on the tensor cores of GPUs from compute capability 8.0 on.

As in tiles.py a block unpacks a part of the weight's rows into shared memory, and copies the same part of the
activations next to it. Here a warp's tensor core multiplies 16 rows with 8 tokens at once, over a group of 32 columns;
then the whole numbers meet their scales. Lane 4 r + k gives words k and k + 4 of rows r and r + 8 and of token r; what
it gets is in fragments.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..package import cuda
from ..simt import float_of, products_of_16, products_of_32
from ..weights import HALVES, PLAIN
from .fragments import ACROSS, DOWN, ROOM, ROWS, SIDES, TOKENS, clear, store
from .panels import filler

GROUPS = 4  # of 32 columns, at a time
LINE = 8 * GROUPS + 4  # words of a row in shared memory: 4 more, so that the words of a fragment lie in 32 banks
# Whole numbers up to 2^22 added to these bits make the float 1.5 * 2^23 + the number: a subtraction converts them.
BITS, OFFSET = 0x4B400000, np.float32(12582912.0)
# Sizes of shared memory: Numba takes names of constants only.
_LEFT, _LEFT_SCALES = max(ROOM, ROWS * LINE), ROWS * GROUPS * 4
_RIGHT, _RIGHT_SCALES = TOKENS * LINE, TOKENS * GROUPS * 3


@cache
def tensor_tiles(name: str) -> Any:
    """The arguments of `rows` in linear.py. Block (i, j) makes rows i of the weight and tokens j of the result."""
    fill, has_halves, has_offsets = filler(name, ROWS, TOKENS, LINE), name in HALVES, name not in PLAIN

    @cuda.jit
    def linear_tensor_tiles(  # type: ignore[no-untyped-def]
        w, row_bytes, table, n, groups, x, scale, sums, m, bias, has_bias, residual, has_residual, out
    ):
        left = cuda.shared.array(_LEFT, np.int32)
        left_scales = cuda.shared.array(_LEFT_SCALES, np.float32)
        right = cuda.shared.array(_RIGHT, np.int32)
        right_scales = cuda.shared.array(_RIGHT_SCALES, np.float32)
        acc = cuda.local.array((DOWN, ACROSS, 4), np.float32)
        lane, warp = cuda.threadIdx.x, cuda.threadIdx.y
        quad, member = lane // 4, lane % 4
        own_row, own_token = warp // SIDES * DOWN * 16 + quad, warp % SIDES * ACROSS * 8
        none = (np.int32(BITS), np.int32(BITS), np.int32(BITS), np.int32(BITS))
        clear(acc)
        for begin in range(0, groups, GROUPS):
            count = min(GROUPS, groups - begin)
            cuda.syncthreads()
            fill(
                w, row_bytes, table, n, groups, x, scale, sums, m, begin, count, left, left_scales, right, right_scales
            )
            cuda.syncthreads()
            for g in range(count):
                for i in range(DOWN):
                    row = own_row + 16 * i
                    at, lower = row * LINE + 8 * g + member, (row + 8) * LINE + 8 * g + member
                    upper_at, lower_at = (g * ROWS + row) * 4, (g * ROWS + row + 8) * 4
                    for j in range(ACROSS):
                        word = (own_token + 8 * j + quad) * LINE + 8 * g + member
                        token_at = (g * TOKENS + own_token + 8 * j + 2 * member) * 3
                        if has_halves:
                            low = products_of_16((left[at], left[lower]), (right[word],), none)
                            high = products_of_16((left[at + 4], left[lower + 4]), (right[word + 4],), none)
                        else:
                            low = products_of_32(
                                (left[at], left[lower], left[at + 4], left[lower + 4]),
                                (right[word], right[word + 4]), none,
                            )  # fmt: skip
                            high = low
                        for e in range(4):
                            own_scales = upper_at if e < 2 else lower_at
                            own_sums = token_at + 3 * (e % 2)
                            product = left_scales[own_scales] * (float_of(low[e]) - OFFSET)
                            if has_halves:
                                product += left_scales[own_scales + 1] * (float_of(high[e]) - OFFSET)
                            value = right_scales[own_sums] * product
                            if has_offsets:
                                value += left_scales[own_scales + 2] * right_scales[own_sums + 1]
                                value += left_scales[own_scales + 3] * right_scales[own_sums + 2]
                            acc[i, j, e] += value
        store(acc, left, n, m, bias, has_bias, residual, has_residual, out)

    return linear_tensor_tiles
