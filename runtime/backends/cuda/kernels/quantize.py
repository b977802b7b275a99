"""Activations to int8, for products with quantized weights. Codes keep the order of the activations."""

from __future__ import annotations

import numpy as np

from ..package import cuda
from ..simt import WARP, warp_max, warp_sum


@cuda.jit(device=True)
def put(value, row, groups, group, codes, scale, sums):  # type: ignore[no-untyped-def]
    """A warp's 32 values become a group: code = value / scale. See `quantize` for the arrays."""
    lane = cuda.threadIdx.x % WARP
    most = warp_max(abs(value))
    d = most / np.float32(127.0)
    code = np.int32(round(value / d)) if most > np.float32(0.0) else np.int32(0)
    low = warp_sum(np.float32(code) if lane < 16 else np.float32(0.0))
    high = warp_sum(np.float32(code) if lane >= 16 else np.float32(0.0))
    own = row * groups + group
    codes[32 * own + lane] = np.int8(code)
    if lane == 0:
        scale[own] = d
        sums[2 * own] = d * low
        sums[2 * own + 1] = d * high


@cuda.jit
def quantize(x, codes, scale, sums, groups, n):  # type: ignore[no-untyped-def]
    """n groups of x, rows of which have `groups`; a warp takes one.

    x float32 [32 * n], codes int8 likewise, scale float32 [n]. sums float32 [2 * n]: of each half of a group, that of
    scale * code, which the offsets of weights are multiplied with.
    """
    begin, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
    for i in range(begin, n, step):
        put(x[32 * i + cuda.threadIdx.x], i // groups, groups, i % groups, codes, scale, sums)
