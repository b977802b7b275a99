"""Gate, up and activation of a gated feed-forward network in one pass, for few tokens."""

from __future__ import annotations

import numpy as np

from ...args import GATED_ROWS, GATED_TOKENS, ROW_SCRATCH_BYTES
from ...jit import Kernel, device, kernel_family
from ...simd import table
from ...simd.table import f32_view, load, plus, store, times
from ..share import chunk_of, next_chunk, rows_of
from .packets import quantize_at
from .rows import SIZES, dots_of, stride_of, tail_of

assert SIZES[-1] == GATED_TOKENS


@kernel_family("linear_glu")
def linear_glu(variant: str) -> Kernel:
    """out[t, r] = act(x[t] . gate[r] + gate_bias[r]) * (x[t] . up[r] + up_bias[r]), as float32, int8 or both.

    Threads take blocks of GATED_ROWS rows: first those of one matrix, then those of the other, so each is still read in
    order; the activation then works on whole vectors, and a block is a group of the int8 form.
    """
    name, _, act = variant.partition(".")
    dot1, dot4, dot8 = dots_of(name)
    function = getattr(table, act)
    stride_from, tail_from = stride_of(name), tail_of(name)
    half = GATED_TOKENS * GATED_ROWS  # values of one matrix

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
        # Private memory: a copied tail, then [gate or up][token][row]. What is in it behind the last row of a matrix
        # does not matter.
        copied = step.scratch + np.uint64(tid * step.scratch_bytes)
        scratch = copied + np.uint64(ROW_SCRATCH_BYTES)
        values = f32_view(scratch, 2 * half)
        biases = (f32_view(a.gate_bias, a.n), f32_view(a.up_bias, a.n))
        blocks = (a.n + GATED_ROWS - 1) // GATED_ROWS
        chunk, turn = chunk_of(blocks, 2 * GATED_ROWS * a.row_bytes, nth), np.int64(0)
        while True:
            start, stop, turn = next_chunk(a.queue, blocks, chunk, turn, tid, nth)
            if start == stop:
                break
            for block in range(start, stop):
                r0 = block * GATED_ROWS
                used = min(GATED_ROWS, a.n - r0)
                t = 0
                while t < tokens:
                    x = a.x + np.uint64(t * stride)
                    done = GATED_TOKENS if t + GATED_TOKENS <= tokens else 4 if t + 4 <= tokens else 1
                    for matrix in range(2):
                        base, has_bias = (a.gate, a.gate_bias != 0) if matrix == 0 else (a.up, a.up_bias != 0)
                        bias = biases[matrix]
                        for r in range(used):
                            w = base + np.uint64((r0 + r) * a.row_bytes)
                            tail = tail_from(w, a.cols, base + matrix_bytes, copied)
                            add, at = bias[r0 + r] if has_bias else np.float32(0.0), matrix * half + r
                            if done == GATED_TOKENS:
                                y8 = dot8(w, tail, a.cols, x, stride)
                                for k in range(GATED_TOKENS):
                                    values[at + k * GATED_ROWS] = plus(y8[k], add)
                            elif done == 4:
                                y4 = dot4(w, tail, a.cols, x, stride)
                                for k in range(4):
                                    values[at + k * GATED_ROWS] = plus(y4[k], add)
                            else:
                                values[at] = plus(dot1(w, tail, a.cols, x, stride)[0], add)
                    for k in range(done):
                        finish(a, scratch + np.uint64(4 * k * GATED_ROWS), (t + k) * a.n + r0, used)
                    t += done

    return run
