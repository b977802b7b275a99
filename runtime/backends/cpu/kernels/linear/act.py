"""Activations to int8: x ~ scale * (code + zero), with a scale and a zero point for each 32 columns.

The range from smallest to largest (with 0 inside it) is cut into 254 steps. Around a symmetric range of the largest
magnitude, as ggml uses, this halves the step of a group with one outlier: on SmolLM2 Q4_1 the mean KL divergence from
float32 falls from 0.0030 to 0.0012. The zero point costs a product with the sums of weights, which are sums of codes.
"""

from __future__ import annotations

import numpy as np
from numba.core import types

from ...jit import device, kernel
from ...simd.emit import F32, I8, Emitter, Vec
from ...simd.table import load, splat, store, times
from ...simd.types import address, emitted
from ..norm import rms_factor
from ..share import rows_of, share

GRAIN = 8  # groups that a thread takes at least: half a cache line of their scales


@emitted(types.void, types.UniTuple(address, 9))
def _quantize32(e: Emitter, at: Vec) -> None:
    """32 float32 at at[0]; the arrays of args.INT8_ARRAYS, in their order, at at[1:]."""
    x_at, codes_at, scale_at, zero_at, centre_at, sum32_at, sum16_at, neg32_at, neg16_at = (
        e.b.extract_value(at.ll, i) for i in range(9)
    )
    nothing = e.scalar(F32, 0.0)
    x = [e.load(F32, 16, x_at, 64 * i) for i in (0, 1)]
    high = e.maximum(e.largest(e.maximum(*x)), nothing)
    low = e.maximum(e.largest(e.maximum(-x[0], -x[1])), nothing)  # minus the smallest
    span = high + low
    scale = span * (1.0 / 254.0)
    is_zero = Vec(e, e.b.fcmp_ordered("==", span.ll, nothing.ll))
    inverse = e.select(is_zero, nothing, e.scalar(F32, 254.0) / span)
    zero = e.round_even(e.splat((high - low) * 0.5 * inverse, 4)).lane(0)
    zeros = e.splat(zero, 16)
    codes = [_clamped(e, e.round_even(v * inverse) - zeros) for v in x]
    for i in (0, 1):
        e.store(e.truncate(codes[i], I8), codes_at, 16 * i)
    e.store(scale, scale_at)
    e.store((zero & 0xFF) * 0x01010101, zero_at)
    e.store(_float(e, zero) * scale, centre_at)
    sums = [e.sum(c) for c in codes]
    for i in (0, 1):
        e.store(_float(e, sums[i] + zero * 16) * scale, sum16_at, 4 * i)
        e.store(-sums[i], neg16_at, 4 * i)
    total = sums[0] + sums[1]
    e.store(_float(e, total + zero * 32) * scale, sum32_at)
    e.store(-total, neg32_at)


def _float(e: Emitter, value: Vec) -> Vec:
    return Vec(e, e.b.sitofp(value.ll, F32))


def _clamped(e: Emitter, codes: Vec) -> Vec:
    """Rounding of the zero point may push the ends of the range one step out."""
    limit = e.like(codes, 127)
    too_big = Vec(e, e.b.icmp_signed(">", codes.ll, limit.ll))
    too_small = Vec(e, e.b.icmp_signed("<", codes.ll, (-limit).ll))
    return e.select(too_small, -limit, e.select(too_big, limit, codes))


@device
def quantize_at(x, group, made):  # type: ignore[no-untyped-def]
    """32 float32 at address x to the given group of the arrays at `made`."""
    codes, scale, zero, centre, sum32, sum16, neg32, neg16 = made
    four, eight = np.uint64(4 * group), np.uint64(8 * group)
    _quantize32((
        x, codes + np.uint64(32 * group), scale + four, zero + four, centre + four, sum32 + four, sum16 + eight,
        neg32 + four, neg16 + eight,
    ))  # fmt: skip


@kernel("quantize")
def quantize(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """Each group of 32 on its own. Columns are a multiple of 32."""
    start, stop = share(rows_of(a, step) * a.cols // 32, GRAIN, tid, nth)
    made = (a.codes, a.scale, a.zero, a.centre, a.sum32, a.sum16, a.neg32, a.neg16)
    for i in range(start, stop):
        quantize_at(a.x + np.uint64(128 * i), i, made)


@kernel("rms_norm_quantize")
def rms_norm_quantize(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """rms_norm and quantize without a barrier between: each thread sums the squares of the rows it has a part of. The
    sums that threads repeat cost less than the barrier that goes.

    out (float32) and weight may be absent (0).
    """
    per_row = a.cols // 32
    start, stop = share(rows_of(a, step) * per_row, GRAIN, tid, nth)
    made = (a.codes, a.scale, a.zero, a.centre, a.sum32, a.sum16, a.neg32, a.neg16)
    own = step.scratch + np.uint64(tid * step.scratch_bytes)
    row = np.int64(-1)
    scale = splat(np.float32(0.0))
    for i in range(start, stop):
        if i // per_row != row:
            row = i // per_row
            scale = splat(rms_factor(a.x + np.uint64(4 * row * a.cols), a.cols, a.eps))
        out = own if a.out == 0 else a.out + np.uint64(128 * i)
        for half in range(2):
            at = np.uint64(64 * half)
            y = times(load(a.x + np.uint64(128 * i) + at), scale)
            if a.weight != 0:
                y = times(y, load(a.weight + np.uint64(128 * (i - row * per_row)) + at))
            store(out + at, y)
        quantize_at(out, i, made)
