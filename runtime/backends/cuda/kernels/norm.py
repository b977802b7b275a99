"""Normalisation of rows: a block takes a row, or one of the heads it is cut into. Definition: runtime/ops/norm.py."""

from __future__ import annotations

import math

import numpy as np

from ..package import cuda
from ..simt import block_sum


@cuda.jit
def rms_norm(x, weight, has_weight, eps, cols, m, out):  # type: ignore[no-untyped-def]
    """m rows of `cols` columns, each of which has the weight float32 [cols]."""
    for row in range(cuda.blockIdx.x, m, cuda.gridDim.x):
        total = np.float32(0.0)
        for c in range(cuda.threadIdx.x, cols, cuda.blockDim.x):
            total += x[row * cols + c] * x[row * cols + c]
        mean = block_sum(total) / np.float32(cols)
        factor = np.float32(1.0) / np.float32(math.sqrt(mean + eps))
        for c in range(cuda.threadIdx.x, cols, cuda.blockDim.x):
            value = x[row * cols + c] * factor
            out[row * cols + c] = value * weight[c] if has_weight else value


@cuda.jit
def layer_norm(x, weight, bias, eps, cols, m, out):  # type: ignore[no-untyped-def]
    for row in range(cuda.blockIdx.x, m, cuda.gridDim.x):
        total = np.float32(0.0)
        for c in range(cuda.threadIdx.x, cols, cuda.blockDim.x):
            total += x[row * cols + c]
        mean = block_sum(total) / np.float32(cols)
        total = np.float32(0.0)
        for c in range(cuda.threadIdx.x, cols, cuda.blockDim.x):
            total += (x[row * cols + c] - mean) * (x[row * cols + c] - mean)
        variance = block_sum(total) / np.float32(cols)
        factor = np.float32(1.0) / np.float32(math.sqrt(variance + eps))
        for c in range(cuda.threadIdx.x, cols, cuda.blockDim.x):
            out[row * cols + c] = (x[row * cols + c] - mean) * factor * weight[c] + bias[c]
