"""Activations to int8, for products with quantized weights."""

from __future__ import annotations

import numpy as np

from ..package import cuda
from ..simt import warp_max, warp_sum


@cuda.jit
def quantize(x, codes, scale, sums, groups):  # type: ignore[no-untyped-def]
    """Groups of 32 of x to int8, code = x / scale; a warp takes one.

    x float32 [32 * groups], codes int8 likewise, scale float32 [groups]. sums float32 [2 * groups]: of each half of a
    group, that of scale * code, which the offsets of weights are multiplied with.
    """
    lane = cuda.threadIdx.x
    for group in range(cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, groups, cuda.gridDim.x * cuda.blockDim.y):
        value = x[32 * group + lane]
        most = warp_max(abs(value))
        d = most / np.float32(127.0)
        code = np.int32(round(value / d)) if most > np.float32(0.0) else np.int32(0)
        low = warp_sum(np.float32(code) if lane < 16 else np.float32(0.0))
        high = warp_sum(np.float32(code) if lane >= 16 else np.float32(0.0))
        codes[32 * group + lane] = np.int8(code)
        if lane == 0:
            scale[group] = d
            sums[2 * group] = d * low
            sums[2 * group + 1] = d * high
