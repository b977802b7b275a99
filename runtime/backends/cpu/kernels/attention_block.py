"""The inner parts of attention in tile registers: pages as tiles, and the softmax of a block of keys.

A block is BLOCK keys of consecutive positions, four pages. Queries and keys are split into a high and a low bfloat16
(see tile_product.py): an error of a score is multiplied with the score's own size, which has no limit. Weights and
values are split only where the model's own weights are exact too: rounding them costs no more than rounding the
activations of a product does.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from ..simd import math, tiles
from ..simd.emit import F32, I16, I32, I64, Emitter, Vec
from ..simd.types import address, emitted
from .pages import PAGE

BLOCK = 4 * PAGE  # keys of a block
KEY_TILES = BLOCK // 16  # of scores, side by side


def _split(e: Emitter, low: Vec, high: Vec) -> list[Vec]:
    """Two vectors of 16 as high and low bfloat16 parts: two vectors of 32 in that order."""
    first = tiles.brain_pairs(e, low, high)
    rounded = tiles.brain_value(e, first)
    return [first, tiles.brain_pairs(e, low - rounded[0], high - rounded[1])]


def _store_pairs(e: Emitter, even: Vec, odd: Vec, at: ir.Value, low: ir.Value, exact: bool = True) -> None:
    """Lanes of two lines side by side, as a line of a right operand; high parts to `at`, low parts to `low`."""
    together = [lane + 16 * line for lane in range(16) for line in (0, 1)]
    parts = _split(e, even, odd) if exact else [tiles.brain_pairs(e, even, odd)]
    for part, to in zip(parts, (at, low), strict=False):
        e.store(e.bitcast(part, I16, 32).take(together), to)


def _parts(e: Emitter, places: Vec, n: int) -> list[ir.Value]:
    return [e.b.extract_value(places.ll, i) for i in range(n)]


@emitted(types.void, types.UniTuple(address, 3), types.int64)
def keys_to_tiles(e: Emitter, places: Vec, key_dim: Vec) -> None:
    """A page of keys, float16 [key_dim, 32], as right operands: two tiles of keys, of key_dim / 32 tiles each.

    places: page, high parts, low parts.
    """
    page, high, low = _parts(e, places, 3)
    tile_bytes = e.b.mul(e.b.udiv(key_dim.ll, ir.Constant(I64, 32)), ir.Constant(I64, tiles.BYTES))

    def pair(i: ir.Value, _: list[Vec]) -> list[Vec]:
        lines = e.index(page, i, 4 * PAGE)
        for half in (0, 1):
            even, odd = (e.half_to_float(e.load(I16, 16, lines, 2 * PAGE * k + 32 * half)) for k in (0, 1))
            offset = e.index(e.b.mul(tile_bytes, ir.Constant(I64, half)), i, tiles.LINE)
            _store_pairs(e, even, odd, e.b.add(high, offset), e.b.add(low, offset))
        return []

    e.loop(e.b.udiv(key_dim.ll, ir.Constant(I64, 2)), [], pair)


def values_to_tiles(exact: bool) -> Any:
    @emitted(types.void, types.UniTuple(address, 3), types.int64, types.int64)
    def unpack(e: Emitter, places: Vec, value_dim: Vec, used: Vec) -> None:
        """The first `used` values of a page, float16 [32, value_dim], as a tile of a right operand for each 16 dims.

        Values past them become zero, whatever the page holds there: they are multiplied with a probability of zero.
        places: page, high parts, low parts; tiles of the next 16 dims come BLOCK / 32 tiles on.
        """
        page, high, low = _parts(e, places, 3)

        def columns(c: ir.Value, _: list[Vec]) -> list[Vec]:
            def pair(i: ir.Value, _: list[Vec]) -> list[Vec]:
                lines = []
                for k in (0, 1):
                    t = e.b.add(e.b.mul(i, ir.Constant(I64, 2)), ir.Constant(I64, k))
                    at = e.b.add(e.index(page, c, 32), e.b.mul(t, e.b.mul(value_dim.ll, ir.Constant(I64, 2))))
                    exists = e.splat(Vec(e, e.b.icmp_signed("<", t, used.ll)), 16)
                    value = e.half_to_float(e.load(I16, 16, at))
                    lines.append(e.select(exists, value, e.zero(F32, 16)))
                offset = e.index(e.index(ir.Constant(I64, 0), c, tiles.BYTES * (BLOCK // 32)), i, tiles.LINE)
                _store_pairs(e, *lines, e.b.add(high, offset), e.b.add(low, offset), exact)
                return []

            e.loop(ir.Constant(I64, 16), [], pair)
            return []

        e.loop(e.b.udiv(value_dim.ll, ir.Constant(I64, 16)), [], columns)

    return unpack


@emitted(types.void, types.UniTuple(address, 3), types.int64, types.float32)
def query_to_lines(e: Emitter, places: Vec, key_dim: Vec, scale: Vec) -> None:
    """One query row times `scale` as its lines of left operands. places: row, line in the high parts, in the low."""
    row, high, low = _parts(e, places, 3)

    def columns(i: ir.Value, _: list[Vec]) -> list[Vec]:
        values = [e.load(F32, 16, e.index(row, i, 128), 64 * half) * scale for half in (0, 1)]
        for part, to in zip(_split(e, *values), (high, low), strict=True):
            e.store(part, e.index(to, i, tiles.BYTES))
        return []

    e.loop(e.b.udiv(key_dim.ll, ir.Constant(I64, 32)), [], columns)


@emitted(types.void, address, types.int64, types.int64, types.float32)
def mask_row(e: Emitter, row: Vec, first: Vec, stop: Vec, cap: Vec) -> None:
    """cap * tanh(score / cap) where cap is not zero, then minus infinity outside keys [first, stop) of a block."""
    low, high = (e.splat(Vec(e, e.b.trunc(v.ll, I32)), 16) for v in (first, stop))
    capped = e.b.fcmp_ordered(">", cap.ll, ir.Constant(F32, 0.0))
    with e.b.if_then(capped):
        inverse = e.scalar(F32, 1.0) / cap
        for k in range(KEY_TILES):
            at = tiles.BYTES * k
            e.store(math.tanh(e, e.load(F32, 16, row.ll, at) * inverse) * cap, row.ll, at)
    for k in range(KEY_TILES):
        lanes = e.const(I32, range(16 * k, 16 * k + 16))
        seen = e.b.and_(e.b.icmp_signed(">=", lanes.ll, low.ll), e.b.icmp_signed("<", lanes.ll, high.ll))
        value = e.load(F32, 16, row.ll, tiles.BYTES * k)
        e.store(e.select(Vec(e, seen), value, e.like(value, float("-inf"))), row.ll, tiles.BYTES * k)


def soften_rows(exact: bool) -> Any:
    @emitted(types.int64, types.UniTuple(address, 6))
    def soften(e: Emitter, places: Vec) -> Vec:
        """Online softmax of 16 rows over a block; not zero if some row's maximum has grown.

        places: scores, KEY_TILES tiles side by side; maxima [16]; sums [16, 16], each row's in 16 parts; corrections
        [16]: what earlier results of a row are to be multiplied with; e^(score - maximum so far) as BLOCK / 32 tiles of
        a left operand, high parts and low parts. Sums are corrected here.
        """
        scores, maxima, sums, corrections, high, low = _parts(e, places, 6)

        def find_maximum(i: ir.Value, _: list[Vec]) -> list[Vec]:
            row, here = e.index(scores, i, tiles.LINE), e.index(maxima, i, 4)
            best = [e.load(F32, 16, row, tiles.BYTES * k) for k in range(KEY_TILES)]
            while len(best) > 1:
                best = [e.maximum(a, b) for a, b in zip(best[::2], best[1::2], strict=True)]
            before = e.load(F32, 0, here)
            now = e.maximum(before, e.largest(best[0]))
            e.store(now, here)
            e.store(before - now, e.index(corrections, i, 4))
            return []

        def exponentiate(i: ir.Value, _: list[Vec]) -> list[Vec]:
            row, total = e.index(scores, i, tiles.LINE), e.index(sums, i, 64)
            shift = e.splat(e.load(F32, 0, e.index(maxima, i, 4)), 16)
            added = e.load(F32, 16, total) * e.splat(e.load(F32, 0, e.index(corrections, i, 4)), 16)
            for page in range(BLOCK // 32):
                x = [e.load(F32, 16, row, tiles.BYTES * (2 * page + k)) for k in (0, 1)]
                p = [math.exp_negative(e, v - shift) if exact else math.exp_weights(e, v, shift) for v in x]
                added = added + (p[0] + p[1])
                parts = _split(e, *p) if exact else [tiles.brain_pairs(e, *p)]
                for part, to in zip(parts, (high, low), strict=False):
                    e.store(part, e.index(to, i, tiles.LINE), tiles.BYTES * page)
            e.store(added, total)
            return []

        rows = ir.Constant(I64, 16)
        e.loop(rows, [], find_maximum)
        differences = e.load(F32, 16, corrections)
        grown = e.less(differences, 0.0)
        e.store(math.exp_negative(e, differences), corrections)
        e.loop(rows, [], exponentiate)
        bits = e.b.bitcast(grown.ll, ir.IntType(16))
        return Vec(e, e.b.zext(bits, I64))

    return soften


@emitted(types.void, address, types.int64, address)
def correct_rows(e: Emitter, results: Vec, count: Vec, corrections: Vec) -> None:
    """`count` tiles of 16 rows of results, each row times its correction."""
    factors = [e.splat(e.load(F32, 0, corrections.ll, 4 * r), 16) for r in range(16)]

    def tile(i: ir.Value, _: list[Vec]) -> list[Vec]:
        at = e.index(results.ll, i, tiles.BYTES)
        for r, factor in enumerate(factors):
            e.store(e.load(F32, 16, at, tiles.LINE * r) * factor, at, tiles.LINE * r)
        return []

    e.loop(count.ll, [], tile)
