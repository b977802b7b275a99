"""Many tokens on a CPU with tile registers (AMX): weights and activations as bfloat16, sums in float32.

A tile multiplication does 8,192 multiply-adds in 16 cycles, four times what int8 dot products reach, and needs no
scale for a group of columns. So every type is unpacked to plain bfloat16: a new type needs nothing here. Rounding a
weight and an activation to 8 significant bits costs less than int8 activations do. Half-precision weights, which lose
nothing elsewhere either, are multiplied in two or three passes, with the low parts that rounding drops.

    for 256 rows and 512 tokens, for 256 columns at a time (a slab):
        unpack the rows' columns, 128 KB in the second-level cache              once for all tokens
        for 32 tokens (16 KB in the first-level cache), for 32 rows:
            four tiles of sums += two tiles of weights x two tiles of tokens, eight times
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...args import SLAB_COLS, SLAB_ROWS, SLAB_TOKENS
from ...jit import Kernel, device, kernel_family
from ...simd import tiles
from ...simd.emit import F32, I64, Emitter, Vec
from ...simd.table import f32_view, load_i32, plus
from ...simd.types import address, emitted
from ..share import chunk_of, is_few, next_chunk, rows_of
from ..tile_product import EXACT, EXACT_RIGHT, ONE_PASS, tile_product
from .slab import PLANE_BYTES, ROW_TILE_BYTES, SLAB_BYTES, slab_unpacker

_SUMS_ROW_BYTES = tiles.BYTES * (SLAB_TOKENS // 16)  # sums of 16 rows
_PASSES = {"BF16": EXACT_RIGHT, "F16": EXACT}


def _tile_finisher(has_residual: bool) -> Any:
    @emitted(types.void, types.UniTuple(address, 5), types.int64)
    def finish(e: Emitter, places: Vec, used: Vec) -> None:
        """A tile of sums [row, token] to out[token, row] + bias + residual.

        places: sums, out, its stride in bytes, 16 biases, residual of the same shape as out.
        """
        sums, out, stride, bias_at, residual = (e.b.extract_value(places.ll, i) for i in range(5))
        lines = tiles.transposed([e.load(F32, 16, sums, tiles.LINE * r) for r in range(16)])
        bias = e.load(F32, 16, bias_at)
        for t, line in enumerate(lines):
            offset = e.b.mul(stride, ir.Constant(I64, t))
            with e.b.if_then(e.b.icmp_signed("<", ir.Constant(I64, t), used.ll)):
                value = line + bias
                if has_residual:
                    value = e.plus(e.load(F32, 16, e.b.add(residual, offset)), value)
                e.store(value, e.b.add(out, offset))

    return finish


_finish_plain, _finish_added = _tile_finisher(False), _tile_finisher(True)


@device
def _finish(sums, out, residual, n, used, tokens, biases):  # type: ignore[no-untyped-def]
    """Sums [SLAB_ROWS, SLAB_TOKENS] in tiles to out[token, row] + bias + residual; `out` is where the first goes."""
    values, old, bias = f32_view(out, tokens * n), f32_view(residual, tokens * n), f32_view(biases, SLAB_ROWS)
    for t in range(0, tokens, 16):
        for r in range(0, used, 16):
            tile = sums + np.uint64(_SUMS_ROW_BYTES * (r // 16) + tiles.BYTES * (t // 16))
            n_tokens, n_rows = min(16, tokens - t), min(16, used - r)
            if n_rows == 16:
                at = np.uint64(4 * (t * n + r))
                places = (tile, out + at, np.uint64(4 * n), biases + np.uint64(4 * r), residual + at)
                if residual != 0:
                    _finish_added(places, n_tokens)
                else:
                    _finish_plain(places, n_tokens)
            else:
                lines = f32_view(tile, 256)
                for i in range(n_tokens):
                    for j in range(n_rows):
                        value, k = lines[16 * j + i] + bias[r + j], (t + i) * n + r + j
                        values[k] = plus(old[k], value) if residual != 0 else value


@device
def _align(at):  # type: ignore[no-untyped-def]
    return (at + np.uint64(63)) // np.uint64(64) * np.uint64(64)


@kernel_family("linear_tiles")
def linear_tiles(name: str) -> Kernel:
    """out[t, r] = x[t] . w[r] + bias[r] for all tokens; threads take 32 rows at a time."""
    passes = _PASSES.get(name, ONE_PASS)
    unpack = slab_unpacker(name)
    product22, product21 = tile_product(2, 2, passes), tile_product(2, 1, passes)

    @device
    def multiply(slab, x, stride, sums, rows, tokens, count, fresh):  # type: ignore[no-untyped-def]
        """A slab times all tokens; x: first high and low tile of the tokens, `stride` bytes between 16 tokens."""
        strides = (np.int64(ROW_TILE_BYTES), np.int64(stride), np.int64(_SUMS_ROW_BYTES), np.int64(tiles.BYTES))
        for t in range(0, tokens, 32):
            far = np.uint64(t // 16) * stride
            right = (x[0] + far, x[1] + far)
            for r in range(0, rows, 32):
                left = slab + np.uint64(ROW_TILE_BYTES * (r // 16))
                to = sums + np.uint64(_SUMS_ROW_BYTES * (r // 16) + tiles.BYTES * (t // 16))
                if t + 16 < tokens:
                    product22((left, left + np.uint64(PLANE_BYTES)), right, to, strides, count, fresh)
                else:
                    product21((left, left + np.uint64(PLANE_BYTES)), right, to, strides, count, fresh)

    @device
    def rows_product(a, step, r0, rows, tokens, slab):  # type: ignore[no-untyped-def]
        """Rows r0 to r0 + rows of the weight, SLAB_ROWS at most, with all tokens; False: cancelled."""
        sums = slab + np.uint64(SLAB_BYTES)
        biases = sums + np.uint64(_SUMS_ROW_BYTES * (SLAB_ROWS // 16))
        bias, slab_bias = f32_view(a.bias, a.n), f32_view(biases, SLAB_ROWS)
        for r in range(SLAB_ROWS):
            slab_bias[r] = bias[r0 + r] if a.bias != 0 and r < rows else np.float32(0.0)
        k_tiles, whole = a.cols // 32, SLAB_COLS // 32
        stride = np.uint64(tiles.BYTES * k_tiles)
        for t0 in range(0, tokens, SLAB_TOKENS):
            block = min(SLAB_TOKENS, tokens - t0)
            k0 = 0
            while k0 < k_tiles:
                if load_i32(step.cancel) != 0:
                    return False
                # No slab of a few columns at the end: the last one takes them.
                count = whole if k_tiles - k0 >= 2 * whole else k_tiles - k0
                unpack(a.w + np.uint64(r0 * a.row_bytes), a.row_bytes, rows, k0, count, slab)
                first = np.uint64(t0 // 16) * stride + np.uint64(tiles.BYTES * k0)
                multiply(slab, (a.high + first, a.low + first), stride, sums, rows, block, count, np.int64(k0 == 0))
                k0 += count
            at = np.uint64(4 * (t0 * a.n + r0))
            old = a.residual + at if a.residual != 0 else np.uint64(0)
            _finish(sums, a.out + at, old, a.n, rows, block, biases)
        return True

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        tokens = rows_of(a, step)
        if is_few(tokens, a, step):
            return
        slab = _align(step.scratch + np.uint64(tid * step.scratch_bytes))
        tiles.configure(slab)
        panels = (a.n + 31) // 32
        chunk, turn = min(chunk_of(panels, 32 * a.row_bytes, nth), np.int64(SLAB_ROWS // 32)), np.int64(0)
        going = True
        while going:
            start, stop, turn = next_chunk(a.queue, panels, chunk, turn, tid, nth)
            going = start < stop
            r0, end = 32 * start, min(32 * stop, a.n)
            while going and r0 < end:
                going = rows_product(a, step, r0, min(np.int64(SLAB_ROWS), end - r0), tokens, slab)
                r0 += SLAB_ROWS
        tiles.release(0)

    return run
