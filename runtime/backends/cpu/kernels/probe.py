"""What this machine can do at most: read in order, and multiply-add values that are in registers (see floors.py)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba.core import types

from ..args import PROBE_BLOCK, PROBE_RING, probe_tile
from ..jit import kernel
from ..simd import tiles
from ..simd.dot import dot
from ..simd.emit import F32, I8, I32, I64, Emitter, Vec
from ..simd.table import i32_view
from ..simd.types import address, emitted
from .linear.ahead import ask_ahead
from .share import share


@emitted(types.int32, address, types.int64)
def _read(e: Emitter, at: Vec, blocks: Vec) -> Vec:
    """The sum of what was read, so that reading it is no dead code."""

    def body(i: ir.Value, sums: list[Vec]) -> list[Vec]:
        here = e.index(at.ll, i, PROBE_BLOCK)
        ask_ahead(e, here, PROBE_BLOCK, numbers=True)
        return [part + e.load(I32, 16, here, 64 * k) for k, part in enumerate(sums)]

    a, b, c, d = e.loop(blocks.ll, [e.zero(I32, 16)] * (PROBE_BLOCK // 64), body)
    return e.sum((a + b) + (c + d))


Step = Callable[[Vec, Vec, Vec], Vec]  # accumulator, a, b


def _rounds(e: Emitter, at: ir.Value, rounds: ir.Value, element: ir.Type, total: Vec, step: Step) -> Vec:
    """Products of values of which `a` stay in registers and `b` come from the first-level cache, as in a product.

    Each round reads at another place, or the compiler would find that it computes the same again.
    """
    n_a, n_b = probe_tile()
    width = 4 * e.isa.lanes
    lanes = width if element == I8 else e.isa.lanes
    a = [e.load(element, lanes, at, PROBE_RING + width * k) for k in range(n_a)]

    def body(i: ir.Value, totals: list[Vec]) -> list[Vec]:
        here = e.index(at, e.b.and_(i, ir.Constant(I64, PROBE_RING // 64 - 1)), 64)
        b = [e.load(element, lanes, here, width * k) for k in range(n_b)]
        return [step(totals[j * n_b + k], a[j], b[k]) for j in range(n_a) for k in range(n_b)]

    totals = e.loop(rounds, [total] * (n_a * n_b), body)
    for other in totals[1:]:
        totals[0] = totals[0] + other
    return totals[0]


@emitted(types.int32, address, types.int64)
def _int8(e: Emitter, at: Vec, rounds: Vec) -> Vec:
    """Dot products of int8 with 7-bit codes: what most weights are, and the faster form where there are two."""
    zero = e.zero(I32, e.isa.lanes)
    return e.sum(_rounds(e, at.ll, rounds.ll, I8, zero, lambda acc, a, b: dot(e, acc, a, b, 7)))


@emitted(types.int32, address, types.int64)
def _float(e: Emitter, at: Vec, rounds: Vec) -> Vec:
    zero = e.zero(F32, e.isa.lanes)
    return e.bitcast(e.sum(_rounds(e, at.ll, rounds.ll, F32, zero, lambda acc, a, b: e.fma(a, b, acc))), I32, 0)


@emitted(types.int32, address, types.int64)
def _pairs(e: Emitter, at: Vec, rounds: Vec) -> Vec:
    """Products of pairs of bfloat16, where the CPU has them outside of tiles."""

    def step(acc: Vec, a: Vec, b: Vec) -> Vec:
        return tiles.multiply_pairs(e, acc, *(e.bitcast(v, I32, v.n) for v in (a, b)))

    return e.bitcast(e.sum(_rounds(e, at.ll, rounds.ll, F32, e.zero(F32, e.isa.lanes), step)), I32, 0)


@emitted(types.void, address, types.int64)
def _tiles(e: Emitter, at: Vec, rounds: Vec) -> None:
    """Each round multiplies two tiles with two: nothing but registers."""

    def body(i: ir.Value, _: list[Vec]) -> list[Vec]:
        for total in range(4):
            tiles.multiply(e, total, 4 + total // 2, 6 + total % 2)
        return []

    for tile in range(8):
        tiles.load(e, tile, e.at(at.ll, PROBE_RING // 8 * (tile % 4)))
    e.loop(rounds.ll, [], body)


@kernel("probe_read")
def probe_read(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """Read `blocks` blocks of PROBE_BLOCK bytes, each thread its part."""
    start, stop = share(a.blocks, 1, tid, nth)
    i32_view(a.out + np.uint64(64 * tid), 1)[0] = _read(a.at + np.uint64(PROBE_BLOCK * start), stop - start)


@kernel("probe_int8")
def probe_int8(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """`rounds` rounds of int8 dot products in each thread."""
    i32_view(a.out + np.uint64(64 * tid), 1)[0] = _int8(a.x, a.rounds)


@kernel("probe_float")
def probe_float(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """`rounds` rounds of float32 multiply-adds in each thread."""
    i32_view(a.out + np.uint64(64 * tid), 1)[0] = _float(a.x, a.rounds)


@kernel("probe_pairs")
def probe_pairs(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """`rounds` rounds of bfloat16 multiply-adds in each thread, where the CPU has them."""
    i32_view(a.out + np.uint64(64 * tid), 1)[0] = _pairs(a.x, a.rounds)


@kernel("probe_tiles")
def probe_tiles(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """`rounds` rounds of bfloat16 products of tiles in each thread, where the CPU has them."""
    tiles.configure(a.out + np.uint64(64 * tid))
    _tiles(a.x, a.rounds)
    tiles.release(0)
