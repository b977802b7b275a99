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
from ..simt import float_of, floats_at, products_of_16, products_of_32, shared, word_at
from ..weights import HALVES, PLAIN
from .fragments import ACROSS, DOWN, ROOM, ROWS, SIDES, TOKENS, clear, store
from .panels import filler

GROUPS = 4  # of 32 columns, at a time
LINE = 8 * GROUPS + 4  # words of a row in shared memory: 4 more, so that the words of a fragment lie in 32 banks
# Whole numbers up to 2^22 added to these bits make the float 1.5 * 2^23 + the number: a subtraction converts them.
OFFSET, _NONE = np.float32(12582912.0), (np.int32(0x4B400000),) * 4
# Sizes: Numba takes names of constants only.
_LEFT, _RIGHT, _OWN_WORDS, _OWN_SCALES = max(ROOM, ROWS * LINE), TOKENS * LINE, 4 * DOWN, 8 * DOWN
_LEFT_SCALES = ROWS * GROUPS * 4
_SCALES = shared(_LEFT_SCALES + TOKENS * GROUPS * 4, np.float32)


@cache
def tensor_tiles(name: str) -> Any:
    """The arguments of `rows` in linear.py. Block (i, j) makes rows i of the weight and tokens j of the result."""
    fill, has_halves, has_offsets = filler(name, ROWS, TOKENS, GROUPS, LINE, 4), name in HALVES, name not in PLAIN

    @cuda.jit
    def linear_tensor_tiles(  # type: ignore[no-untyped-def]
        w, row_bytes, table, n, groups, x, scale, sums, m, bias, has_bias, residual, has_residual, out
    ):
        left = cuda.shared.array(_LEFT, np.int32)
        right = cuda.shared.array(_RIGHT, np.int32)
        both = _SCALES()
        left_scales, right_scales = both[:_LEFT_SCALES], both[_LEFT_SCALES:]
        acc = cuda.local.array((DOWN, ACROSS, 4), np.float32)
        a = cuda.local.array(_OWN_WORDS, np.int32)
        own = cuda.local.array(_OWN_SCALES, np.float32)
        lane, warp = np.int32(cuda.threadIdx.x), np.int32(cuda.threadIdx.y)
        quad, member = lane >> 2, lane & 3
        own_row, own_token = np.int32(warp // SIDES * DOWN * 16 + quad), np.int32(warp % SIDES * ACROSS * 8)
        left_at, right_at = np.int32(own_row * LINE + member), np.int32((own_token + quad) * LINE + member)
        clear(acc)
        for begin in range(0, groups, GROUPS):
            count = np.int32(min(GROUPS, groups - begin))
            cuda.syncthreads()
            fill(
                w, row_bytes, table, n, groups, x, scale, sums, m, begin, count, left, left_scales, right, right_scales
            )
            cuda.syncthreads()
            for g in range(count):
                for i in range(DOWN):
                    for k in range(4):  # words k and k + 4 of rows r and r + 8
                        at = left_at + (16 * i + 8 * (k % 2)) * LINE + 4 * (k // 2)
                        a[4 * i + k] = word_at(left, np.int32(at + 8 * g))
                    for h in range(2):
                        four_scales = floats_at(left_scales, np.int32(g * ROWS + own_row + 16 * i + 8 * h))
                        for k in range(4):
                            own[8 * i + 4 * h + k] = four_scales[k]
                for j in range(ACROSS):
                    at = np.int32(right_at + 8 * j * LINE + 8 * g)
                    b, b_high = word_at(right, at), word_at(right, at + 4)
                    token = np.int32(g * TOKENS + own_token + 8 * j + 2 * member)
                    of_tokens = floats_at(right_scales, token) + floats_at(right_scales, token + 1)
                    for i in range(DOWN):
                        if has_halves:
                            low = products_of_16((a[4 * i], a[4 * i + 1]), (b,), _NONE)
                            high = products_of_16((a[4 * i + 2], a[4 * i + 3]), (b_high,), _NONE)
                        else:
                            low = products_of_32(
                                (a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3]), (b, b_high), _NONE
                            )
                            high = low
                        for e in range(4):
                            row, t = 8 * i + 4 * (e // 2), 4 * (e % 2)
                            product = own[row] * (float_of(low[e]) - OFFSET)
                            if has_halves:
                                product += own[row + 1] * (float_of(high[e]) - OFFSET)
                            value = of_tokens[t] * product
                            if has_offsets and has_halves:
                                value += own[row + 2] * of_tokens[t + 1] + own[row + 3] * of_tokens[t + 2]
                            elif has_offsets:
                                value += own[row + 2] * (of_tokens[t + 1] + of_tokens[t + 2])
                            acc[i, j, e] += value
        store(acc, left, n, m, bias, has_bias, residual, has_residual, out)

    return linear_tensor_tiles
