"""Activations as int8 in lanes: what a product of rows reads (act.py says how they are rounded).

Of 256 columns, lane l (0 to 15) has columns 16 l to 16 l + 15, four of them in each of four vectors: column
16 l + 4 m + b is byte 64 m + 4 l + b. So a lane's four dot products add up in int32 and are scaled once: a group of
columns that shares a scale is one lane or two. Scales and sums are stored per lane. Columns after the last whole 256
stay in order.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types

from ...jit import device, kernel
from ...simd.emit import I8, I32, I64, Emitter, Vec
from ...simd.table import load, splat, store, times
from ...simd.types import address, emitted
from ..norm import rms_factor
from ..share import rows_of, share
from .act import GRAIN, as_float, int8_of

# Two lanes, first their dwords 0, then their dwords 1...
_PAIRS = (0, 4, 1, 5, 2, 6, 3, 7)


@emitted(types.void, types.UniTuple(address, 6), types.int64)
def _quantize32(e: Emitter, at: Vec, in_lanes: Vec) -> None:
    """32 float32 at at[0]; the arrays of args.LANE_ARRAYS, in their order, at at[1:]."""
    x_at, codes_at, scale_at, centre_at, sum_at, neg_at = (e.b.extract_value(at.ll, i) for i in range(6))
    codes, zero, scale = int8_of(e, x_at)
    for i, values in enumerate(codes):
        total = e.sum(values)
        e.store(scale, scale_at, 4 * i)
        e.store(as_float(e, zero) * scale, centre_at, 4 * i)
        e.store(as_float(e, total + zero * 16) * scale, sum_at, 4 * i)
        e.store(-total, neg_at, 4 * i)
    dwords = e.bitcast(e.concat([e.truncate(values, I8) for values in codes]), I32, 8)
    with e.b.if_else(e.b.icmp_signed("!=", in_lanes.ll, ir.Constant(I64, 0))) as (lanes, order):
        with lanes:
            for m in range(4):
                e.store(dwords.take(_PAIRS[2 * m : 2 * m + 2]), codes_at, 64 * m)
        with order:
            e.store(dwords, codes_at)


@device
def quantize_at(x, group, per_row, made):  # type: ignore[no-untyped-def]
    """32 float32 at address x to the given group of the arrays at `made`, of rows of `per_row` groups."""
    codes, scale, centre, sums, neg = made
    row = group // per_row
    g = group - row * per_row
    in_lanes = np.int64(g < per_row // 8 * 8)
    at = np.uint64(32 * row * per_row + (g // 8 * 256 + g % 8 * 8 if in_lanes != 0 else 32 * g))
    eight = np.uint64(8 * group)
    _quantize32((x, codes + at, scale + eight, centre + eight, sums + eight, neg + eight), in_lanes)


@kernel("quantize_lanes")
def quantize_lanes(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """Each group of 32 on its own. Columns are a multiple of 32."""
    per_row = a.cols // 32
    start, stop = share(rows_of(a, step) * per_row, GRAIN, tid, nth)
    made = (a.codes, a.scale, a.centre, a.sum, a.neg)
    for i in range(start, stop):
        quantize_at(a.x + np.uint64(128 * i), i, per_row, made)


@kernel("rms_norm_quantize")
def rms_norm_quantize(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """rms_norm and quantize without a barrier between: each thread sums the squares of the rows it has a part of. The
    sums that threads repeat cost less than the barrier that goes.

    out (float32) and weight may be absent (0).
    """
    per_row = a.cols // 32
    start, stop = share(rows_of(a, step) * per_row, GRAIN, tid, nth)
    made = (a.codes, a.scale, a.centre, a.sum, a.neg)
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
        quantize_at(out, i, per_row, made)
