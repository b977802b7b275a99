"""Rows of the embedding table, decoded to float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...jit import Kernel, kernel_family
from ...simd.emit import I32, I64, Emitter, Vec
from ...simd.table import i32_view
from ...simd.types import address, emitted
from .blocks import Block32, single_block
from .table import FLOATS, QUANTIZED
from .weights import WeightType


def _store_codes(e: Emitter, codes: Vec, scale: Vec, bias: Vec, group: int, factor: Vec, at: ir.Value) -> None:
    """Codes in column order as float32; lane g of scale and bias belongs to columns g * group onwards."""
    for i in range(0, codes.n, 16):
        values = e.to_float(e.widen_unsigned(codes.take(range(i, i + 16)), I32))
        lanes = [i // group] * 16
        e.store(e.fma(values, scale.take(lanes), bias.take(lanes)) * e.splat(factor, 16), at, 4 * i)


def _quantized_row(kind: type[WeightType]) -> Any:
    @emitted(types.void, address, address, types.int64, types.float32)
    def decode(e: Emitter, w: Vec, out: Vec, cols: Vec, factor: Vec) -> None:
        def whole(i: ir.Value, _: list[Vec]) -> list[Vec]:
            u = kind.unpack(e, e.index(w.ll, i, 256 // kind.block * kind.block_bytes))
            bias = kind.bias_of(e, u.scale, u.bias)
            per = 64 // kind.group
            for j, codes in enumerate(u.codes):
                lanes = range(j * per, (j + 1) * per)
                at = e.at(e.index(out.ll, i, 1024), 256 * j)
                _store_codes(e, codes, u.scale.take(lanes), bias.take(lanes), kind.group, factor, at)
            return []

        supers = e.b.udiv(cols.ll, ir.Constant(I64, 256))
        e.loop(supers, [], whole)
        if issubclass(kind, Block32):
            done = e.b.mul(supers, ir.Constant(I64, 8))

            def tail(i: ir.Value, _: list[Vec]) -> list[Vec]:
                block = e.b.add(done, i)
                codes, scale, bias = single_block(kind, e, e.index(w.ll, block, kind.block_bytes))
                _store_codes(e, codes, scale, bias, 32, factor, e.index(out.ll, block, 128))
                return []

            e.loop(e.b.sub(e.b.udiv(cols.ll, ir.Constant(I64, 32)), done), [], tail)

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
    """out[t] = factor * weight[token id of t] (or its position). The engine has checked that ids are rows of it."""
    decode = _quantized_row(QUANTIZED[name]) if name in QUANTIZED else _float_row(name)

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        ids = i32_view(step.positions if a.by_position else step.tokens, step.n_tokens)
        for t in range(tid, step.n_tokens, nth):
            if 0 <= ids[t] < a.n:
                decode(a.w + np.uint64(ids[t] * a.row_bytes), a.out + np.uint64(4 * t * a.cols), a.cols, a.factor)

    return run
