"""Many tokens: unpack a panel of rows once (panel.py), multiply it with every token.

The microkernel holds a tile of rows x tokens in registers, sums 32 (or 16) columns exactly in int32, and only then
scales. Every type ends in the same panel, so a new type needs nothing here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...args import OCT, ROW_SPACE
from ...jit import Kernel, device, kernel_family
from ...simd.dot import dot, is_centred
from ...simd.emit import F32, I8, I32, I64, Emitter, Vec
from ...simd.table import f32_view, load_i32, plus
from ...simd.types import address, emitted
from ..share import chunk_of, is_few, next_chunk, rows_of
from .act import BLOCK_BYTES, GROUP_BYTES, NEGATIVES, OFFSET, SCALE, TILE, field_at
from .corrections import corrections, row_terms
from .panel import LANES, REGISTERS, ROWS, float_unpacker, offset_of, panel_unpacker
from .table import FLOATS, QUANTIZED
from .weights import WeightType

_PLACES = types.UniTuple(address, 8)


class _Tile:
    """Emits ROWS rows x TILE tokens: int32 sums of each group, scaled into float32 accumulators."""

    def __init__(self, e: Emitter, kind: type[WeightType]) -> None:
        self.e, self.kind = e, kind
        self.steps = kind.group // 4  # dot products in a group

    def block(self, panel: ir.Value, scales: ir.Value, x: ir.Value, i: ir.Value, acc: list[Vec]) -> list[Vec]:
        """Add 32 columns: block i of the panel and of its lines of scales, and the activations at x (act.py).

        Lists: [register * TILE + token]. The scale of the activations is that of 32 columns: two groups of 16 share its
        multiplication.
        """
        e, parts = self.e, 32 // self.kind.group
        block = e.index(panel, i, 32 * ROWS)
        x_scale = [e.splat(e.load(F32, 0, x, field_at(SCALE, t)), LANES) for t in range(TILE)]
        total: list[Vec] = []
        for part in range(parts):
            scale = self._line(scales, i, parts, part)
            sums = [e.to_float(s) for s in self._sums(block, x, part)]
            if parts == 1:
                return [e.fma(s, scale[k // TILE] * x_scale[k % TILE], acc[k]) for k, s in enumerate(sums)]
            products = enumerate(sums)
            total = [e.fma(s, scale[k // TILE], total[k]) if part else s * scale[k // TILE] for k, s in products]
        return [e.fma(t, x_scale[k % TILE], acc[k]) for k, t in enumerate(total)]

    def _sums(self, block: ir.Value, x: ir.Value, part: int) -> list[Vec]:
        e = self.e
        start = [self._start(x, t, part) for t in range(TILE)]
        sums = [start[t] for _ in range(REGISTERS) for t in range(TILE)]
        for step in range(self.steps * part, self.steps * (part + 1)):
            w = [e.load(I8, 4 * LANES, block, 4 * ROWS * step + 4 * LANES * r) for r in range(REGISTERS)]
            for t in range(TILE):
                four = e.bitcast(e.splat(e.load(I32, 0, x, 4 * (TILE * step + t)), LANES), I8, 4 * LANES)
                for r in range(REGISTERS):
                    sums[r * TILE + t] = dot(e, sums[r * TILE + t], w[r], four, self.kind.bits)
        return sums

    def _start(self, x: ir.Value, t: int, part: int) -> Vec:
        """A fixed zero point is free: it is where the integer sum starts."""
        if is_centred(self.e.isa, self.kind.bits):
            return self.e.zero(I32, LANES)
        field = NEGATIVES[32 // self.kind.group] + part
        start = self.e.splat(self.e.load(I32, 0, x, field_at(field, t)), LANES)
        return start if OFFSET is not None else start << offset_of(self.kind).bit_length() - 1

    def _line(self, lines: ir.Value, i: ir.Value, parts: int, part: int) -> list[Vec]:
        line = self.e.index(lines, i, 4 * ROWS * parts)
        return [self.e.load(F32, LANES, line, 4 * (ROWS * part + LANES * r)) for r in range(REGISTERS)]


def _microkernel(kind: type[WeightType]) -> Any:
    """f(places, x, cols): a tile.

    places: panel, scales, terms, units of the terms, out, its stride, initial values, residual (laid out as out, or 0).
    """

    @emitted(types.void, _PLACES, address, types.int64)
    def micro(e: Emitter, places: Vec, x: Vec, cols: Vec) -> None:
        parts = (e.b.extract_value(places.ll, i) for i in range(8))
        panel, scales, terms, units, out, out_stride, initial, residual = parts
        tile, groups = _Tile(e, kind), e.b.udiv(cols.ll, ir.Constant(I64, 32))

        def body(i: ir.Value, acc: list[Vec]) -> list[Vec]:
            here = e.index(x.ll, i, BLOCK_BYTES)
            return tile.block(panel, scales, here, i, acc)

        first = [e.load(F32, LANES, initial, 4 * LANES * r) for r in range(REGISTERS)]
        acc = e.loop(groups, corrections(e, kind, (terms, units), x.ll, groups, first), body)
        store_tile(e, acc, out, out_stride, residual)

    return micro


def _token_rows(e: Emitter, base: ir.Value, stride: ir.Value) -> list[ir.Value]:
    return [e.b.add(base, e.b.mul(stride, ir.Constant(I64, t))) if t else base for t in range(TILE)]


def store_tile(e: Emitter, acc: list[Vec], out: ir.Value, stride: ir.Value, residual: ir.Value) -> None:
    places = [_token_rows(e, base, stride) for base in (out, residual)]
    with e.b.if_else(e.b.icmp_unsigned("!=", residual, ir.Constant(I64, 0))) as (added, plain):
        for branch, is_added in ((added, True), (plain, False)):
            with branch:
                for t, (row, old) in enumerate(zip(*places, strict=True)):
                    for r in range(REGISTERS):
                        value, offset = acc[r * TILE + t], 4 * LANES * r
                        e.store(e.plus(e.load(F32, LANES, old, offset), value) if is_added else value, row, offset)


@emitted(types.void, _PLACES, types.UniTuple(address, 3), types.int64)
def _float_micro(e: Emitter, places: Vec, x: Vec, cols: Vec) -> None:
    """The same for a panel of float32 [cols, ROWS]. x: float32 of the first token, bytes between tokens, the last
    token that exists: those behind it repeat it.
    """
    panel, _, _, _, out, out_stride, initial, residual = (e.b.extract_value(places.ll, i) for i in range(8))
    first, stride, last = (e.b.extract_value(x.ll, i) for i in range(3))
    rows = []
    for t in range(TILE):
        place = ir.Constant(I64, t)
        place = e.b.select(e.b.icmp_unsigned("<", place, last), place, last)
        rows.append(e.b.add(first, e.b.mul(stride, place)))

    def body(k: ir.Value, acc: list[Vec]) -> list[Vec]:
        line = e.index(panel, k, 4 * ROWS)
        w = [e.load(F32, LANES, line, 4 * LANES * r) for r in range(REGISTERS)]
        result = list(acc)
        for t, row in enumerate(rows):
            one = e.splat(e.load(F32, 0, e.index(row, k, 4)), LANES)
            for r in range(REGISTERS):
                result[r * TILE + t] = e.fma(w[r], one, acc[r * TILE + t])
        return result

    start = [e.load(F32, LANES, initial, 4 * LANES * r) for r in range(REGISTERS) for _ in range(TILE)]
    store_tile(e, e.loop(cols.ll, start, body), out, out_stride, residual)


@device
def align(at):  # type: ignore[no-untyped-def]
    return (at + np.uint64(63)) // np.uint64(64) * np.uint64(64)


@device
def store_part(tile, used, done, n, out, residual):  # type: ignore[no-untyped-def]
    """The first `used` rows and `done` tokens of a tile that reaches past an end of the matrix."""
    values, to, old = f32_view(tile, ROWS * TILE), f32_view(out, done * n), f32_view(residual, done * n)
    for t in range(done):
        for r in range(used):
            value = values[t * ROWS + r]
            to[t * n + r] = plus(old[t * n + r], value) if residual != 0 else value


@kernel_family("linear_gemm")
def linear_gemm(name: str) -> Kernel:
    """out[t, r] = residual[t, r] + (x[t] . w[r] + bias[r]) for all tokens; threads take panels of rows."""
    is_float = name in FLOATS
    unpack = float_unpacker(FLOATS[name]) if is_float else panel_unpacker(QUANTIZED[name])
    make_terms = None if is_float else row_terms(QUANTIZED[name])
    micro = _float_micro if is_float else _microkernel(QUANTIZED[name])
    group = 32 if is_float else QUANTIZED[name].group

    @device
    def operand(a, t, tokens):  # type: ignore[no-untyped-def]
        """What the microkernel reads of the tokens from t on."""
        if is_float:
            stride = np.uint64(4 * a.cols)
            return a.x + np.uint64(t) * stride, stride, np.uint64(tokens - 1 - t)
        return a.packed + np.uint64(t // TILE * (a.cols // 32) * GROUP_BYTES)

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        tokens = rows_of(a, step)
        if is_few(tokens, a, step):
            return
        # Private memory: tile, first values, units of terms, one row buffer per row of an oct, scales, biases, mean
        # weights, terms, panel.
        tile = align(step.scratch + np.uint64(tid * step.scratch_bytes))
        initial = tile + np.uint64(4 * ROWS * TILE)
        units = initial + np.uint64(4 * ROWS)
        rows = units + np.uint64(4 * ROWS)
        scales = rows + np.uint64(OCT * ROW_SPACE)
        lines = np.uint64(4 * ROWS * (a.cols // group + 1))
        biases, means, terms = scales + lines, scales + lines + lines, scales + lines + lines + lines
        panel = align(terms + lines)
        first_values, bias = f32_view(initial, ROWS), f32_view(a.bias, a.n)
        none = np.uint64(0)
        panels = (a.n + ROWS - 1) // ROWS
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
                w = a.w + np.uint64(r0 * a.row_bytes)
                unpack(w, a.row_bytes, used - 1, a.cols, (panel, scales, biases, means), rows)
                if not is_float:
                    make_terms((means, biases, terms, units), a.cols // 32)
                for r in range(ROWS):
                    first_values[r] = bias[r0 + r] if a.bias != 0 and r < used else np.float32(0.0)
                for t in range(0, tokens, TILE):
                    done = min(TILE, tokens - t)
                    whole = used == ROWS and done == TILE
                    at = np.uint64(4 * (t * a.n + r0))
                    old = a.residual + at if a.residual != 0 else none
                    out, stride = (a.out + at, np.uint64(4 * a.n)) if whole else (tile, np.uint64(4 * ROWS))
                    places = (panel, scales, terms, units, out, stride, initial, old if whole else none)
                    micro(places, operand(a, t, tokens), a.cols)
                    if not whole:
                        store_part(tile, used, done, a.n, a.out + at, old)

    return run
