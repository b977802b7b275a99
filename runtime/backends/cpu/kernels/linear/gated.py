"""Gate, up and activation of a gated feed-forward network in one pass, for few tokens."""

from __future__ import annotations

import numpy as np

from ...args import GATED_ROWS, ROW_SCRATCH_BYTES, ROWS_AT_ONCE, SEVERAL
from ...jit import Kernel, device, kernel_family
from ...simd import table
from ...simd.table import f32_view, load, plus, store, times
from ..share import chunk_of, next_chunk, rows_of
from .packets import quantize_at
from .rows import dots_of, products_at, stride_of


@kernel_family("linear_glu")
def linear_glu(variant: str) -> Kernel:
    """out[t, r] = act(x[t] . gate[r] + gate_bias[r]) * (x[t] . up[r] + up_bias[r]), as float32, int8 or both.

    Threads take blocks of GATED_ROWS rows: first those of one matrix, then those of the other, so each is still read in
    order; the activation then works on whole vectors, and a block is a group of the int8 form.
    """
    name, _, act = variant.partition(".")
    dots, stride_from, function = dots_of(name), stride_of(name), getattr(table, act)
    half = SEVERAL * GATED_ROWS  # values of one matrix

    @device
    def finish(a, gate, first, used):  # type: ignore[no-untyped-def]
        """Gate values of one token at an address, up values behind them: elements `first`... of the result."""
        for i in range(0, GATED_ROWS, 16):
            at = gate + np.uint64(4 * i)
            store(at, times(function(load(at)), load(at + np.uint64(4 * half))))
        if a.out != 0:
            values, out = f32_view(gate, used), f32_view(a.out + np.uint64(4 * first), used)
            for r in range(used):
                out[r] = values[r]
        if a.packets != 0:
            quantize_at(gate, first // GATED_ROWS, a.n // GATED_ROWS, a.packets)

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        tokens = rows_of(a, step)
        stride, matrix_bytes = stride_from(a.cols), np.uint64(a.n * a.row_bytes)
        # Private memory: that of the products, then [gate or up][token][row]. What is in it behind the last row of a
        # matrix does not matter.
        scratch = step.scratch + np.uint64(tid * step.scratch_bytes)
        block_at = scratch + np.uint64(ROW_SCRATCH_BYTES)
        values = f32_view(block_at, 2 * half)
        blocks = (a.n + GATED_ROWS - 1) // GATED_ROWS
        chunk, turn = chunk_of(blocks, 2 * GATED_ROWS * a.row_bytes, nth), np.int64(0)
        while True:
            start, stop, turn = next_chunk(a.queue, blocks, chunk, turn, tid, nth)
            if start == stop:
                break
            for block in range(start, stop):
                r0 = block * GATED_ROWS
                used = min(GATED_ROWS, a.n - r0)
                groups = (used + ROWS_AT_ONCE - 1) // ROWS_AT_ONCE
                for first in range(0, tokens, SEVERAL):
                    some, x = min(SEVERAL, tokens - first), a.x + np.uint64(first * stride)
                    for k in range(2 * groups):  # of gate, then of up
                        matrix, r = k // groups, k % groups * ROWS_AT_ONCE
                        base, bias_at = (a.gate, a.gate_bias) if matrix == 0 else (a.up, a.up_bias)
                        w, rows = base + np.uint64((r0 + r) * a.row_bytes), min(ROWS_AT_ONCE, used - r)
                        dots(w, a.row_bytes, rows, a.cols, base + matrix_bytes, x, some, scratch)
                        bias = f32_view(bias_at, a.n)
                        for i in range(rows):
                            add = bias[r0 + r + i] if bias_at != 0 else np.float32(0.0)
                            products = f32_view(products_at(scratch, i), some)
                            for t in range(some):
                                values[matrix * half + t * GATED_ROWS + r + i] = plus(products[t], add)
                    for t in range(some):
                        finish(a, block_at + np.uint64(4 * t * GATED_ROWS), (first + t) * a.n + r0, used)

    return run
