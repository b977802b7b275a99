"""Mixture of experts: each row of the result uses the weight of the expert that its token was routed to."""

from __future__ import annotations

import numpy as np

from ...args import ROWS_AT_ONCE
from ...jit import Kernel, kernel_family
from ...simd.table import f32_view, i32_view
from ..share import chunk_of, next_chunk
from .rows import one_of, products_at, stride_of


@kernel_family("expert_rows")
def expert_rows(name: str) -> Kernel:
    """out[r] = x[r] (or x[r // n_used] when shared) . weight[ids[r]] + bias[ids[r]]; threads take ranges of columns."""
    one, stride_from = one_of(name), stride_of(name)

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
                for r0 in range(start, stop, ROWS_AT_ONCE):
                    first, some = expert * a.n + r0, min(ROWS_AT_ONCE, stop - r0)
                    one(a.w + np.uint64(first * a.row_bytes), a.row_bytes, some, a.cols, end, x, scratch)
                    for r in range(some):
                        value = f32_view(products_at(scratch, r), 1)[0]
                        out[row * a.n + r0 + r] = value + bias[first + r] if a.bias != 0 else value

    return run
