"""Many tokens: unpack a panel of rows once (panel.py), multiply it with every token.

The microkernel holds a tile of rows x tokens in registers, sums 32 (or 16) columns exactly in int32, and only then
scales. Every type ends in the same panel, so a new type needs nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...args import OCT, ROW_SPACE
from ...features import target
from ...jit import Kernel, device, kernel_family
from ...simd.dot import dot
from ...simd.emit import F32, I8, I32, I64, Emitter, Vec
from ...simd.table import f32_view, load_i32, plus
from ...simd.types import address, emitted
from ..share import chunk_of, is_few, next_chunk, rows_of
from .panel import LANES, REGISTERS, ROWS, float_unpacker, panel_unpacker
from .table import FLOATS, QUANTIZED
from .weights import WeightType

TILE = target().isa.gemm_tile[1]  # tokens multiplied at once

_PLACES, _OPERAND = types.UniTuple(address, 8), types.UniTuple(address, 7)


class _Tile:
    """Emits ROWS rows x `tokens` tokens: int32 sums of each group, scaled into float32 accumulators."""

    def __init__(self, e: Emitter, kind: type[WeightType], tokens: int) -> None:
        self.e, self.kind, self.tokens = e, kind, tokens
        self.steps = kind.group // 4  # dot products in a group

    def group(self, panel: ir.Value, lines: list[ir.Value], x: _Group, acc: list[Vec]) -> list[Vec]:
        """Add a group of columns, whose scales, biases and sums are at `lines`. Lists: [register * tokens + token]."""
        e, kind, tokens = self.e, self.kind, self.tokens
        start = [self._start(x.neg[t]) for t in range(tokens)]
        sums = [start[t] for _ in range(REGISTERS) for t in range(tokens)]
        for step in range(self.steps):
            w = [e.load(I8, 4 * LANES, panel, 4 * ROWS * step + 4 * LANES * r) for r in range(REGISTERS)]
            for t in range(tokens):
                four = e.splat(e.load(I32, 0, x.codes[t], x.first + 4 * step), LANES)
                four = e.bitcast(four, I8, 4 * LANES)
                for r in range(REGISTERS):
                    i = r * tokens + t
                    sums[i] = dot(e, sums[i], w[r], four, kind.bits)
        result = []
        for r in range(REGISTERS):
            scale, bias, weight_sum = (e.load(F32, LANES, line, 4 * LANES * r) for line in lines)
            for t in range(tokens):
                i = r * tokens + t
                total = e.fma(e.to_float(sums[i]), scale * x.scale[t], acc[i])
                total = e.fma(weight_sum, e.splat(x.centre[t], LANES), total)
                if kind.offset is None:
                    total = e.fma(bias, e.splat(x.sums[t], LANES), total)
                result.append(total)
        return result

    def _start(self, negative_sum: Vec | None) -> Vec:
        """A fixed zero point is free: it is where the integer sum starts."""
        e = self.e
        if negative_sum is None:
            return e.zero(I32, LANES)
        return e.splat(negative_sum << (self.kind.offset or 1).bit_length() - 1, LANES)


@dataclass(frozen=True)
class _Group:
    """Activations of one group of columns, per token: where its codes are (`first` bytes on), and its numbers."""

    codes: list[ir.Value]
    first: int
    scale: list[Vec]
    centre: list[Vec]
    sums: list[Vec]
    neg: list[Vec | None]


def _microkernel(kind: type[WeightType], tokens: int) -> Any:
    """f(places, x, strides, cols, initial values): a tile.

    places: panel, scales, biases, sums of weights, out, its stride, initial values, residual (laid out as out, or 0).
    """

    @emitted(types.void, _PLACES, _OPERAND, _OPERAND, types.int64)
    def micro(e: Emitter, places: Vec, x: Vec, strides: Vec, cols: Vec) -> None:
        parts = (e.b.extract_value(places.ll, i) for i in range(8))
        panel, scales, biases, weight_sums, out, out_stride, initial, residual = parts
        codes, scale, centre, sum32, sum16, neg32, neg16 = (
            _token_rows(e, e.b.extract_value(x.ll, i), e.b.extract_value(strides.ll, i), tokens) for i in range(7)
        )
        tile = _Tile(e, kind, tokens)
        parts = 32 // kind.group
        sums_at, neg_at = (sum32, neg32) if parts == 1 else (sum16, neg16)

        def body(i: ir.Value, acc: list[Vec]) -> list[Vec]:
            block = e.index(panel, i, 32 * ROWS)
            x_codes = [e.index(row, i, 32) for row in codes]
            x_scale, x_centre = ([e.load(F32, 0, e.index(row, i, 4)) for row in rows] for rows in (scale, centre))
            for part in range(parts):
                g = e.b.add(e.b.mul(i, ir.Constant(I64, parts)), ir.Constant(I64, part))
                sums = [e.load(F32, 0, e.index(row, g, 4)) for row in sums_at] if kind.offset is None else []
                neg = [e.load(I32, 0, e.index(row, g, 4)) for row in neg_at] if kind.offset is not None else []
                nothing: list[Vec | None] = [None] * tokens
                group = _Group(x_codes, kind.group * part, x_scale, x_centre, sums, [*neg] or nothing)
                lines = [e.index(place, g, 4 * ROWS) for place in (scales, biases, weight_sums)]
                acc = tile.group(e.at(block, part * kind.group * ROWS), lines, group, acc)
            return acc

        first = [e.load(F32, LANES, initial, 4 * LANES * r) for r in range(REGISTERS) for _ in range(tokens)]
        acc = e.loop(e.b.udiv(cols.ll, ir.Constant(I64, 32)), first, body)
        _store_tile(e, acc, out, out_stride, residual, tokens)

    return micro


def _token_rows(e: Emitter, base: ir.Value, stride: ir.Value, tokens: int) -> list[ir.Value]:
    return [e.b.add(base, e.b.mul(stride, ir.Constant(I64, t))) if t else base for t in range(tokens)]


def _store_tile(
    e: Emitter, acc: list[Vec], out: ir.Value, stride: ir.Value, residual: ir.Value, tokens: int
) -> None:
    places = [_token_rows(e, base, stride, tokens) for base in (out, residual)]
    with e.b.if_else(e.b.icmp_unsigned("!=", residual, ir.Constant(I64, 0))) as (added, plain):
        for branch, is_added in ((added, True), (plain, False)):
            with branch:
                for t, (row, old) in enumerate(zip(*places, strict=True)):
                    for r in range(REGISTERS):
                        value, offset = acc[r * tokens + t], 4 * LANES * r
                        e.store(e.plus(e.load(F32, LANES, old, offset), value) if is_added else value, row, offset)


def _float_microkernel(tokens: int) -> Any:
    """The same for a panel of float32 [cols, ROWS] and float32 activations x[0]."""

    @emitted(types.void, _PLACES, _OPERAND, _OPERAND, types.int64)
    def micro(e: Emitter, places: Vec, x: Vec, strides: Vec, cols: Vec) -> None:
        panel, _, _, _, out, out_stride, initial, residual = (e.b.extract_value(places.ll, i) for i in range(8))
        rows = _token_rows(e, e.b.extract_value(x.ll, 0), e.b.extract_value(strides.ll, 0), tokens)

        def body(k: ir.Value, acc: list[Vec]) -> list[Vec]:
            line = e.index(panel, k, 4 * ROWS)
            w = [e.load(F32, LANES, line, 4 * LANES * r) for r in range(REGISTERS)]
            result = list(acc)
            for t, row in enumerate(rows):
                one = e.splat(e.load(F32, 0, e.index(row, k, 4)), LANES)
                for r in range(REGISTERS):
                    result[r * tokens + t] = e.fma(w[r], one, acc[r * tokens + t])
            return result

        first = [e.load(F32, LANES, initial, 4 * LANES * r) for r in range(REGISTERS) for _ in range(tokens)]
        _store_tile(e, e.loop(cols.ll, first, body), out, out_stride, residual, tokens)

    return micro


@device
def _align(at):  # type: ignore[no-untyped-def]
    return (at + np.uint64(63)) // np.uint64(64) * np.uint64(64)


@kernel_family("linear_gemm")
def linear_gemm(name: str) -> Kernel:
    """out[t, r] = residual[t, r] + (x[t] . w[r] + bias[r]) for all tokens; threads take panels of rows."""
    is_float = name in FLOATS
    if is_float:
        unpack, micro, micro1 = float_unpacker(FLOATS[name]), _float_microkernel(TILE), _float_microkernel(1)
        group = 32
    else:
        kind = QUANTIZED[name]
        unpack, micro, micro1 = panel_unpacker(kind), _microkernel(kind, TILE), _microkernel(kind, 1)
        group = kind.group

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        tokens = rows_of(a, step)
        if is_few(tokens, a, step):
            return
        groups = np.uint64(a.cols // 32)
        four, eight = np.uint64(4) * groups, np.uint64(8) * groups
        if is_float:
            strides = (np.uint64(4 * a.cols), four, four, four, eight, four, eight)
            x = (a.x, a.x, a.x, a.x, a.x, a.x, a.x)
        else:
            strides = (np.uint64(a.cols), four, four, four, eight, four, eight)
            x = (a.codes, a.scale, a.centre, a.sum32, a.sum16, a.neg32, a.neg16)
        # Private memory: tile and first values, one row buffer per row of an oct, scales, biases, sums, panel.
        tile = _align(step.scratch + np.uint64(tid * step.scratch_bytes))
        initial = tile + np.uint64(4 * ROWS * TILE)
        rows = initial + np.uint64(4 * ROWS)
        scales = rows + np.uint64(OCT * ROW_SPACE)
        lines = np.uint64(4 * ROWS * (a.cols // group + 1))
        biases, sums = scales + lines, scales + lines + lines
        panel = _align(sums + lines)
        first_values, bias, tile_values = f32_view(initial, ROWS), f32_view(a.bias, a.n), f32_view(tile, ROWS * TILE)
        out_values, residual = f32_view(a.out, tokens * a.n), f32_view(a.residual, tokens * a.n)
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
                unpack(w, a.row_bytes, used - 1, a.cols, (panel, scales, biases, sums), rows)
                for r in range(ROWS):
                    first_values[r] = bias[r0 + r] if a.bias != 0 and r < used else np.float32(0.0)
                t = 0
                while t < tokens:
                    n = np.uint64(t)
                    now = (
                        x[0] + n * strides[0], x[1] + n * strides[1], x[2] + n * strides[2], x[3] + n * strides[3],
                        x[4] + n * strides[4], x[5] + n * strides[5], x[6] + n * strides[6],
                    )  # fmt: skip
                    many = t + TILE <= tokens
                    if used == ROWS:
                        at = np.uint64(4 * (t * a.n + r0))
                        out, stride, old = a.out + at, np.uint64(4 * a.n), a.residual + at if a.residual != 0 else none
                    else:
                        out, stride, old = tile, np.uint64(4 * ROWS), none
                    places = (panel, scales, biases, sums, out, stride, initial, old)
                    if many:
                        micro(places, now, strides, a.cols)
                    else:
                        micro1(places, now, strides, a.cols)
                    done = TILE if many else 1
                    if used < ROWS:
                        for k in range(done):
                            for r in range(used):
                                i, value = (t + k) * a.n + r0 + r, tile_values[k * ROWS + r]
                                out_values[i] = plus(residual[i], value) if a.residual != 0 else value
                    t += done

    return run
