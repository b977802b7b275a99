"""Mixture of experts: each row of the result uses the weight of the expert that its token was routed to."""

from __future__ import annotations

import numpy as np

from ...jit import Kernel, kernel_family
from ...simd.table import f32_view, i32_view
from ..share import chunk_of, next_chunk
from .rows import dot_of, stride_of, tail_of


@kernel_family("expert_rows")
def expert_rows(name: str) -> Kernel:
    """out[r] = x[r] (or x[r // n_used] when shared) . weight[ids[r]] + bias[ids[r]]; threads take ranges of columns."""
    dot = dot_of(name)
    stride_from, tail_from = stride_of(name), tail_of(name)

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        rows = (step.n_outputs if a.on_outputs != 0 else step.n_tokens) * a.n_used
        stride, end = stride_from(a.cols), a.w + np.uint64(a.n_expert * a.n * a.row_bytes)
        scratch = step.scratch + np.uint64(tid * step.scratch_bytes)
        ids = i32_view(a.ids, rows)
        out = f32_view(a.out, rows * a.n)
        bias = f32_view(a.bias, a.n * a.n_expert)
        chunk, turn = chunk_of(a.n, rows * a.row_bytes, nth), np.int64(0)
        while True:
            start, stop, turn = next_chunk(a.queue, a.n, chunk, turn, tid, nth)
            if start == stop:
                break
            for row in range(rows):
                expert = ids[row]
                if expert < 0 or expert >= a.n_expert:
                    continue
                source = row // a.n_used if a.shared else row
                x = a.x + np.uint64(source * stride)
                for r in range(start, stop):
                    w = a.w + np.uint64((expert * a.n + r) * a.row_bytes)
                    value = dot(w, tail_from(w, a.cols, end, scratch), a.cols, x)
                    if a.bias != 0:
                        value += bias[expert * a.n + r]
                    out[row * a.n + r] = value

    return run
