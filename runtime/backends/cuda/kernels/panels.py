"""Parts of a weight and of activations of int8 on their way to a tile: unpacked into shared memory by a whole block."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..package import cuda
from ..weights import UNPACK


def filler(name: str, rows: int, tokens: int, line: int) -> Any:
    """f(w, row_bytes, table, n, groups, x, scale, sums, m, begin, count, left, left_scales, right, right_scales):
    `count` groups of 32 columns from `begin` on, of the block's rows and tokens; those beyond n and m are the last once
    more.

    left int32 [rows, line] and right int32 [tokens, line] get eight words for each group, left_scales float32
    [count, rows, 4] scales and offsets, right_scales float32 [count, tokens, 3] scales and sums. Blocks are of two
    dimensions.
    """
    unpack = UNPACK[name]

    @cuda.jit(device=True)
    def fill(  # type: ignore[no-untyped-def]
        w, row_bytes, table, n, groups, x, scale, sums, m, begin, count, left, left_scales, right, right_scales
    ):
        codes = cuda.local.array(8, np.int32)
        scales = cuda.local.array(4, np.float32)
        first_row, first_token = cuda.blockIdx.x * rows, cuda.blockIdx.y * tokens
        thread, threads = cuda.threadIdx.x + cuda.blockDim.x * cuda.threadIdx.y, cuda.blockDim.x * cuda.blockDim.y
        for task in range(thread, rows * count, threads):
            r, g = task // count, task % count
            unpack(w, np.int64(min(first_row + r, n - 1)) * row_bytes, begin + g, table, codes, scales)
            for k in range(8):
                left[r * line + 8 * g + k] = codes[k]
            for k in range(4):
                left_scales[(g * rows + r) * 4 + k] = scales[k]
        for task in range(thread, tokens * 8 * count, threads):
            t, k, g = task // (8 * count), task // count % 8, task % count
            right[t * line + 8 * g + k] = x[8 * (min(first_token + t, m - 1) * groups + begin + g) + k]
        for task in range(thread, tokens * count, threads):
            t, g = task // count, task % count
            source, to = min(first_token + t, m - 1) * groups + begin + g, (g * tokens + t) * 3
            right_scales[to] = scale[source]
            right_scales[to + 1] = sums[2 * source]
            right_scales[to + 2] = sums[2 * source + 1]

    return fill
