"""Normalizations. Each row (or head) is independent; threads take ranges of them."""

from __future__ import annotations

import numpy as np
from numba.core import types

from ..jit import device, kernel
from ..simd.emit import F32, Emitter, Vec
from ..simd.table import f32_view, fma, load, splat, store, sum_of, times
from ..simd.types import emitted
from .share import rows_of, share


@emitted(types.float32, types.float32, types.float32, types.float32)
def _root_factor(e: Emitter, total: Vec, n: Vec, eps: Vec) -> Vec:
    """1 / sqrt(total / n + eps), each step rounded as written: the kernels that norm agree in every bit."""
    root = e.call("llvm.sqrt.f32", F32, e.plus(e.over(total, n), eps))
    return e.over(e.scalar(F32, 1.0), root)


@device
def rms_factor(x, n, eps):  # type: ignore[no-untyped-def]
    """What the n float32 at address x are multiplied with to have a mean of squares of 1."""
    total = splat(np.float32(0.0))
    whole = n // 16 * 16
    for i in range(0, whole, 16):
        v = load(x + np.uint64(4 * i))
        total = fma(v, v, total)
    result = sum_of(total)
    rest = f32_view(x, n)
    for i in range(whole, n):
        result += rest[i] * rest[i]
    return _root_factor(result, np.float32(n), eps)


@kernel("rms_norm")
def rms_norm(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """out = x * rsqrt(mean(x^2) + eps) * weight, for each of `heads` groups of a row; weight may be absent (0)."""
    n = a.cols // a.heads
    start, stop = share(rows_of(a, step) * a.heads, 1, tid, nth)
    whole = n // 16 * 16
    for row in range(start, stop):
        x = a.x + np.uint64(4 * row * n)
        out = a.out + np.uint64(4 * row * n)
        factor = rms_factor(x, n, a.eps)
        scale = splat(factor)
        rest, result = f32_view(x, n), f32_view(out, n)
        if a.weight != 0:
            weight = f32_view(a.weight, n)
            for i in range(0, whole, 16):
                at = np.uint64(4 * i)
                store(out + at, times(load(x + at) * scale, load(a.weight + at)))
            for i in range(whole, n):
                result[i] = rest[i] * factor * weight[i]
        else:
            for i in range(0, whole, 16):
                at = np.uint64(4 * i)
                store(out + at, load(x + at) * scale)
            for i in range(whole, n):
                result[i] = rest[i] * factor


@kernel("layer_norm")
def layer_norm(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, per row; bias may be absent (0)."""
    n = a.cols
    start, stop = share(rows_of(a, step), 1, tid, nth)
    weight = f32_view(a.weight, n)
    bias = f32_view(a.bias, n)
    for row in range(start, stop):
        x = f32_view(a.x + np.uint64(4 * row * n), n)
        out = f32_view(a.out + np.uint64(4 * row * n), n)
        total = np.float32(0.0)
        for i in range(n):
            total += x[i]
        mean = total / np.float32(n)
        square = np.float32(0.0)
        for i in range(n):
            square += (x[i] - mean) * (x[i] - mean)
        factor = np.float32(1.0) / np.float32(np.sqrt(square / np.float32(n) + a.eps))
        for i in range(n):
            out[i] = (x[i] - mean) * factor * weight[i]
        if a.bias != 0:
            for i in range(n):
                out[i] += bias[i]
