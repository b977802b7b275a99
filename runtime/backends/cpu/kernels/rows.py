"""Copying whole rows."""

from __future__ import annotations

import numpy as np

from ..jit import kernel
from ..simd.table import f32_view, i32_view
from .share import share


@kernel("take_rows")
def take_rows(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """out[r] = x[outputs[r]]"""
    outputs = i32_view(step.outputs, step.n_outputs)
    start, stop = share(step.n_outputs, 1, tid, nth)
    for r in range(start, stop):
        x = f32_view(a.x + np.uint64(4 * outputs[r] * a.cols), a.cols)
        out = f32_view(a.out + np.uint64(4 * r * a.cols), a.cols)
        for i in range(a.cols):
            out[i] = x[i]
