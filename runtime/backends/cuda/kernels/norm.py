"""Normalisation of rows: a block takes a row, or one of the heads it is cut into. Definition: runtime/ops/norm.py.

Products with quantized weights read rows as int8: the second kernel of each kind makes both at once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..package import cuda
from ..simt import WARP, block_sum
from .quantize import put

_function = cuda.jit(device=True)


@_function
def _root_mean_square(x, row, cols, eps):  # type: ignore[no-untyped-def]
    """(0, 1 / sqrt(mean(x^2) + eps)) of a row."""
    total = np.float32(0.0)
    for c in range(cuda.threadIdx.x, cols, cuda.blockDim.x):
        total += x[row * cols + c] * x[row * cols + c]
    mean = block_sum(total) / np.float32(cols)
    return np.float32(0.0), np.float32(1.0) / np.float32(math.sqrt(mean + eps))


@_function
def _deviation(x, row, cols, eps):  # type: ignore[no-untyped-def]
    """(mean(x), 1 / sqrt(variance(x) + eps)) of a row."""
    total = np.float32(0.0)
    for c in range(cuda.threadIdx.x, cols, cuda.blockDim.x):
        total += x[row * cols + c]
    mean = block_sum(total) / np.float32(cols)
    total = np.float32(0.0)
    for c in range(cuda.threadIdx.x, cols, cuda.blockDim.x):
        total += (x[row * cols + c] - mean) * (x[row * cols + c] - mean)
    variance = block_sum(total) / np.float32(cols)
    return mean, np.float32(1.0) / np.float32(math.sqrt(variance + eps))


def _kernels(statistics: Any) -> tuple[Any, Any]:
    """out = (x - mean) * factor * weight + bias, of m rows; and the same as groups of int8 (quantize.py).

    x float32 [m * cols]; weight and bias float32 [cols], if the flags say so.
    """

    @cuda.jit
    def norm(x, weight, has_weight, bias, has_bias, eps, cols, m, out):  # type: ignore[no-untyped-def]
        for row in range(cuda.blockIdx.x, m, cuda.gridDim.x):
            mean, factor = statistics(x, row, cols, eps)
            for c in range(cuda.threadIdx.x, cols, cuda.blockDim.x):
                value = (x[row * cols + c] - mean) * factor
                if has_weight:
                    value *= weight[c]
                out[row * cols + c] = value + bias[c] if has_bias else value

    @cuda.jit
    def norm_quantized(  # type: ignore[no-untyped-def]
        x, weight, has_weight, bias, has_bias, eps, cols, m, out, has_out, codes, scale, sums
    ):
        groups, warps = cols // 32, cuda.blockDim.x // WARP
        for row in range(cuda.blockIdx.x, m, cuda.gridDim.x):
            mean, factor = statistics(x, row, cols, eps)
            for group in range(cuda.threadIdx.x // WARP, groups, warps):
                c = 32 * group + cuda.threadIdx.x % WARP
                value = (x[row * cols + c] - mean) * factor
                if has_weight:
                    value *= weight[c]
                if has_bias:
                    value += bias[c]
                if has_out:
                    out[row * cols + c] = value
                put(value, row, groups, group, codes, scale, sums)

    return norm, norm_quantized


rms_norm, rms_norm_quantized = _kernels(_root_mean_square)
layer_norm, layer_norm_quantized = _kernels(_deviation)
