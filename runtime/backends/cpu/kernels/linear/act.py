"""Activations to int8: one scale for each 32 columns, and the sums that make a weight's bias cost one product a group."""

from __future__ import annotations

import numpy as np
from numba.core import types

from ...jit import kernel
from ...simd.emit import F32, I8, I32, Emitter, Vec
from ...simd.types import address, emitted
from ..share import rows_of, share

_SEVEN = types.UniTuple(address, 7)


@emitted(types.void, _SEVEN)
def _quantize32(e: Emitter, at: Vec) -> None:
    """32 float32 at at[0] -> 32 int8 at at[1]; scale at [2], scaled sums of 32 and 16 at [3] [4], minus the sums at [5] [6]."""
    x_at, codes_at, scale_at, sum32_at, sum16_at, neg32_at, neg16_at = (e.b.extract_value(at.ll, i) for i in range(7))
    x = [e.load(F32, 16, x_at, 64 * i) for i in (0, 1)]
    largest = e.largest(e.maximum(e.absolute(x[0]), e.absolute(x[1])))
    is_zero = Vec(e, e.b.fcmp_ordered("==", largest.ll, e.scalar(F32, 0.0).ll))
    inverse = e.select(is_zero, e.scalar(F32, 0.0), e.scalar(F32, 127.0) / largest)
    scale = largest * (1.0 / 127.0)
    codes = [e.round_even(v * inverse) for v in x]
    for i in (0, 1):
        e.store(e.truncate(codes[i], I8), codes_at, 16 * i)
    sums = [e.sum(c) for c in codes]
    e.store(scale, scale_at)
    for i in (0, 1):
        e.store(Vec(e, e.b.sitofp(sums[i].ll, F32)) * scale, sum16_at, 4 * i)
        e.store(e.scalar(I32, 0) - sums[i], neg16_at, 4 * i)
    total = sums[0] + sums[1]
    e.store(Vec(e, e.b.sitofp(total.ll, F32)) * scale, sum32_at)
    e.store(e.scalar(I32, 0) - total, neg32_at)


@kernel("quantize")
def quantize(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """Each group of 32 on its own: code = round(x * 127 / max|x|). Columns are a multiple of 32."""
    start, stop = share(rows_of(a, step) * a.cols // 32, 8, tid, nth)
    for i in range(start, stop):
        four, eight = np.uint64(4 * i), np.uint64(8 * i)
        _quantize32((
            a.x + np.uint64(128 * i), a.codes + np.uint64(32 * i), a.scale + four, a.sum32 + four, a.sum16 + eight,
            a.neg32 + four, a.neg16 + eight,
        ))  # fmt: skip
