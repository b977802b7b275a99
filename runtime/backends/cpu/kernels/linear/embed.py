"""Rows of the embedding table, decoded to float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...jit import Kernel, kernel_family
from ...simd.emit import I64, Emitter, Vec
from ...simd.table import i32_view
from ...simd.types import address, emitted
from .table import FLOATS, QUANTIZED
from .weights import SUPER, WeightType


def _store(e: Emitter, values: list[Vec], factor: Vec, at: ir.Value) -> None:
    for i, value in enumerate(values):
        e.store(value * e.splat(factor, 16), at, 64 * i)


def _quantized_row(kind: type[WeightType]) -> Any:
    @emitted(types.void, address, address, types.int64, types.float32)
    def decode(e: Emitter, w: Vec, out: Vec, cols: Vec, factor: Vec) -> None:
        def whole(i: ir.Value, _: list[Vec]) -> list[Vec]:
            values = kind.floats(e, e.index(w.ll, i, kind.super_bytes()), SUPER)
            _store(e, values, factor, e.index(out.ll, i, 4 * SUPER))
            return []

        supers = e.b.udiv(cols.ll, ir.Constant(I64, 256))
        e.loop(supers, [], whole)
        if kind.block < SUPER:
            done = e.b.mul(supers, ir.Constant(I64, SUPER // kind.block))

            def tail(i: ir.Value, _: list[Vec]) -> list[Vec]:
                block = e.b.add(done, i)
                values = kind.floats(e, e.index(w.ll, block, kind.block_bytes), kind.block)
                _store(e, values, factor, e.index(out.ll, block, 4 * kind.block))
                return []

            e.loop(e.b.sub(e.b.udiv(cols.ll, ir.Constant(I64, kind.block)), done), [], tail)

    return decode


def _float_row(name: str) -> Any:
    kind = FLOATS[name]

    @emitted(types.void, address, address, types.int64, types.float32)
    def decode(e: Emitter, w: Vec, out: Vec, cols: Vec, factor: Vec) -> None:
        def one(i: ir.Value, _: list[Vec]) -> list[Vec]:
            e.store(kind.load(e, e.index(w.ll, i, kind.size), 1).lane(0) * factor, e.index(out.ll, i, 4))
            return []

        e.loop(cols.ll, [], one)

    return decode


@kernel_family("embed")
def embed(name: str) -> Kernel:
    """out[t] = factor * weight[token id of t] (or its position, or 0). The engine has checked that ids are rows."""
    decode = _quantized_row(QUANTIZED[name]) if name in QUANTIZED else _float_row(name)

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        ids = i32_view(step.positions if a.source == 1 else step.tokens, step.n_tokens)
        for t in range(tid, step.n_tokens, nth):
            row = 0 if a.source == 2 else ids[t]
            if 0 <= row < a.n:
                decode(a.w + np.uint64(row * a.row_bytes), a.out + np.uint64(4 * t * a.cols), a.cols, a.factor)

    return run
