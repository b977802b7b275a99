"""Parts of a weight and of activations of int8 on their way to a tile: unpacked into shared memory by a whole block."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..package import cuda
from ..simt import float_at, four_at, pair_at
from ..weights import UNPACK


def filler(name: str, rows: int, tokens: int, most: int, line: int, width: int) -> Any:
    """f(w, row_bytes, table, n, groups, x, scale, sums, m, begin, count, left, left_scales, right, right_scales):
    `count` groups of 32 columns, up to `most`, from `begin` on, of the block's rows and tokens; those beyond n and m
    are the last once more.

    left int32 [rows, line] and right int32 [tokens, line] get eight words for each group, left_scales float32
    [count, rows, 4] scales and offsets, right_scales float32 [count, tokens, width] scales and sums. Blocks are of two
    dimensions, `most` a power of two: what a task is of is told without division.
    """
    unpack, bits, last_group = UNPACK[name], most.bit_length() - 1, most - 1

    @cuda.jit(device=True)
    def fill(  # type: ignore[no-untyped-def]
        w, row_bytes, table, n, groups, x, scale, sums, m, begin, count, left, left_scales, right, right_scales
    ):
        codes = cuda.local.array(8, np.int32)
        scales = cuda.local.array(4, np.float32)
        first_row, first_token = cuda.blockIdx.x * rows, cuda.blockIdx.y * tokens
        thread, threads = cuda.threadIdx.x + cuda.blockDim.x * cuda.threadIdx.y, cuda.blockDim.x * cuda.blockDim.y
        for task in range(np.int32(thread), np.int32(rows * most), np.int32(threads)):
            r, g = task >> bits & rows - 1, task & last_group
            if g < count:
                unpack(w, np.int64(min(first_row + r, n - 1)) * row_bytes, begin + g, table, codes, scales)
                for k in range(8):
                    left[r * line + 8 * g + k] = codes[k]
                for k in range(4):
                    left_scales[(g * rows + r) * 4 + k] = scales[k]
        for task in range(np.int32(thread), np.int32(tokens * most), np.int32(threads)):
            t, g = task >> bits & tokens - 1, task & last_group
            if g < count:
                source, to = np.int32(min(first_token + t, m - 1) * groups + begin + g), (g * tokens + t) * width
                for k in range(2):
                    words = four_at(x, 2 * source + k)
                    for i in range(4):
                        right[t * line + 8 * g + 4 * k + i] = words[i]
                right_scales[to] = float_at(scale, source)
                right_scales[to + 1], right_scales[to + 2] = pair_at(sums, source)

    return fill
