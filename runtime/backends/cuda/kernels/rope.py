"""Rotary position embedding. The definition: runtime/ops/rope.py."""

from __future__ import annotations

import math

import numpy as np

from ..package import cuda
from ..simt import device


@cuda.jit
def rope(x, inv_freq, mscale, n_head, head_dim, n_rot, neox, positions, m, out):  # type: ignore[no-untyped-def]
    """A block for each token. Pairs are (i, i + n_rot / 2) where `neox` is set, (2 i, 2 i + 1) otherwise."""
    pairs = n_rot // 2
    for t in range(cuda.blockIdx.x, m, cuda.gridDim.x):
        position, row = np.float32(positions[t]), t * n_head * head_dim
        for i in range(cuda.threadIdx.x, pairs * n_head, cuda.blockDim.x):
            k, at = i % pairs, row + i // pairs * head_dim
            angle = position * inv_freq[k]
            cos, sin = np.float32(math.cos(angle)) * mscale, np.float32(math.sin(angle)) * mscale
            first = at + (k if neox else 2 * k)
            second = first + (pairs if neox else 1)
            a, b = x[first], x[second]
            out[first] = a * cos - b * sin
            out[second] = a * sin + b * cos
        rest = head_dim - n_rot
        for i in range(cuda.threadIdx.x, rest * n_head, cuda.blockDim.x):
            at = row + i // rest * head_dim + n_rot + i % rest
            out[at] = x[at]


@device
def rotated(x, at, i, position, inv_freq, mscale, n_rot, neox):  # type: ignore[no-untyped-def]
    """Element i of the head that begins at x[at], as `rope` makes it."""
    if i >= n_rot:
        return x[at + i]
    pairs = n_rot // 2
    if neox:
        k, is_second, other = i % pairs, i >= pairs, (i - pairs if i >= pairs else i + pairs)
    else:
        k, is_second, other = i // 2, i % 2 == 1, i ^ 1
    angle = position * inv_freq[k]
    cos, sin = np.float32(math.cos(angle)) * mscale, np.float32(math.sin(angle)) * mscale
    if is_second:
        return x[at + other] * sin + x[at + i] * cos
    return x[at + i] * cos - x[at + other] * sin
