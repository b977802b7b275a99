"""Many tokens with half-precision weights, on a CPU that multiplies pairs of bfloat16 (vdpbf16ps): one pass.

Weights and activations are rounded to bfloat16 (BF16 weights lose nothing), sums are float32. An instruction does twice
the multiply-adds of a fused float32 one at the same rate (Zen 4: one of 512 bits a cycle either way). Rounding costs
half of what int8 activations do: 0.23 % of the length of a result for F16, 0.17 % for BF16. Without rounding it would
take two or three passes, and then float32 (gemm.py) is as fast.

The panel holds ROWS rows, two columns of each row in a 32-bit lane; activations lie in tiles of tokens as int8 ones do
(act.py), for each 32 columns two columns of each token, the next two of each, ...
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...args import PACKED_BYTES
from ...jit import Kernel, kernel, kernel_family
from ...simd.emit import F32, I32, Emitter, Vec
from ...simd.table import f32_view, load_i32
from ...simd.tiles import brain_pairs, multiply_pairs, transposed
from ...simd.types import address, emitted
from ..share import chunk_of, is_few, next_chunk, rows_of, share
from .act import TILE, rows_from
from .gemm import align, store_part, store_tile
from .panel import LANES, REGISTERS, ROWS, ask_for
from .table import FLOATS

BLOCK_BYTES = PACKED_BYTES * TILE  # 32 columns of a tile of tokens


def _pairs_of(e: Emitter, name: str, at: ir.Value) -> Vec:
    """32 columns of a row."""
    if name == "BF16":
        return e.load(I32, 16, at)
    kind = FLOATS[name]
    return brain_pairs(e, kind.load(e, at, 16), kind.load(e, e.at(at, 16 * kind.size), 16))


@emitted(types.void, address, address, types.int64, types.int64, types.int64)
def _pack(e: Emitter, x: Vec, to: Vec, stride: Vec, last: Vec, blocks: Vec) -> None:
    """float32 of a tile of tokens, `stride` bytes apart, into `blocks` blocks."""
    rows = rows_from(e, x, stride, last, TILE)

    def body(i: ir.Value, _: list[Vec]) -> list[Vec]:
        lines = [_pairs_of(e, "F32", e.index(row, i, 128)) for row in rows]
        lines += [lines[0]] * (16 - TILE)  # what becomes of them is not stored
        for p, line in enumerate(transposed(lines)):
            e.store(line.take(range(TILE)), e.index(to.ll, i, BLOCK_BYTES), 4 * TILE * p)
        return []

    e.loop(blocks.ll, [], body)


@kernel("pack_pairs")
def pack_pairs(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """x float32 [rows, cols] -> packed. Columns are a multiple of 32; tokens past the last repeat it."""
    tokens, groups = rows_of(a, step), a.cols // 32
    start, stop = share((tokens + TILE - 1) // TILE * groups, 1, tid, nth)
    stride = np.int64(4 * a.cols)
    while start < stop:
        tile = start // groups
        first = start - tile * groups
        count = min(stop - start, groups - first)
        x = a.x + np.uint64(tile * TILE * stride + 128 * first)
        _pack(x, a.packed + np.uint64(BLOCK_BYTES * start), stride, tokens - 1 - tile * TILE, count)
        start += count


def _unpacker(name: str) -> Any:
    size = FLOATS[name].size

    @emitted(types.void, address, address, types.int64, types.int64, types.int64)
    def unpack(e: Emitter, w: Vec, panel: Vec, stride: Vec, last: Vec, blocks: Vec) -> None:
        """16 rows from w on into the panel; those past the last repeat it, and their results are never stored."""
        rows = rows_from(e, w, stride, last, LANES)

        def body(i: ir.Value, _: list[Vec]) -> list[Vec]:
            lines = transposed([_pairs_of(e, name, e.index(row, i, 32 * size)) for row in rows])
            for p, line in enumerate(lines):
                e.store(line, e.index(panel.ll, i, 16 * 4 * ROWS), 4 * ROWS * p)
            return []

        e.loop(blocks.ll, [], body)

    return unpack


@emitted(types.void, types.UniTuple(address, 5), address, types.int64)
def _micro(e: Emitter, places: Vec, x: Vec, blocks: Vec) -> None:
    """A tile. Places: panel, out, its stride, initial values, residual (laid out as out, or 0)."""
    panel, out, stride, initial, residual = (e.b.extract_value(places.ll, i) for i in range(5))

    def body(i: ir.Value, acc: list[Vec]) -> list[Vec]:
        line, here = e.index(panel, i, 16 * 4 * ROWS), e.index(x.ll, i, BLOCK_BYTES)
        for p in range(16):
            w = [e.load(I32, LANES, line, 4 * (ROWS * p + LANES * r)) for r in range(REGISTERS)]
            two = [e.splat(e.load(I32, 0, here, 4 * (TILE * p + t)), LANES) for t in range(TILE)]
            acc = [multiply_pairs(e, total, w[k // TILE], two[k % TILE]) for k, total in enumerate(acc)]
        return acc

    first = [e.load(F32, LANES, initial, 4 * LANES * r) for r in range(REGISTERS) for _ in range(TILE)]
    store_tile(e, e.loop(blocks.ll, first, body), out, stride, residual)


@kernel_family("linear_pairs")
def linear_pairs(name: str) -> Kernel:
    """out[t, r] = residual[t, r] + (x[t] . w[r] + bias[r]) for all tokens; threads take panels of rows."""
    unpack = _unpacker(name)

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        tokens, blocks = rows_of(a, step), a.cols // 32
        if is_few(tokens, a, step):
            return
        tile = align(step.scratch + np.uint64(tid * step.scratch_bytes))
        initial = tile + np.uint64(4 * ROWS * TILE)
        panel = align(initial + np.uint64(4 * ROWS))
        first_values, bias = f32_view(initial, ROWS), f32_view(a.bias, a.n)
        none = np.uint64(0)
        panels = (a.n + ROWS - 1) // ROWS
        ahead = ROWS * a.row_bytes // 64 * TILE // tokens + 1  # lines of weights to ask for with each tile
        chunk, turn = chunk_of(panels, ROWS * a.row_bytes, nth), np.int64(0)
        while True:
            start, stop, turn = next_chunk(a.queue, panels, chunk, turn, tid, nth)
            if start == stop:
                break
            for p in range(start, stop):
                if load_i32(step.cancel) != 0:
                    return
                r0 = p * ROWS
                used = min(ROWS, a.n - r0)
                for r in range(0, ROWS, LANES):
                    first = min(r0 + r, a.n - 1)
                    w = a.w + np.uint64(first * a.row_bytes)
                    unpack(w, panel + np.uint64(4 * r), a.row_bytes, a.n - 1 - first, blocks)
                for r in range(ROWS):
                    first_values[r] = bias[r0 + r] if a.bias != 0 and r < used else np.float32(0.0)
                next_rows = a.w + np.uint64((r0 + ROWS) * a.row_bytes)
                for t in range(0, tokens, TILE):
                    ask_for(next_rows + np.uint64(t // TILE * ahead * 64), ahead)
                    done = min(TILE, tokens - t)
                    whole = used == ROWS and done == TILE
                    at = np.uint64(4 * (t * a.n + r0))
                    old = a.residual + at if a.residual != 0 else none
                    out, stride = (a.out + at, np.uint64(4 * a.n)) if whole else (tile, np.uint64(4 * ROWS))
                    x = a.packed + np.uint64(t // TILE * blocks * BLOCK_BYTES)
                    _micro((panel, out, stride, initial, old if whole else none), x, blocks)
                    if not whole:
                        store_part(tile, used, done, a.n, a.out + at, old)

    return run
