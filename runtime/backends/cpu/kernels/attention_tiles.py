"""The inner parts of attention: products of a panel of query rows with one page, and the softmax between them.

A panel is PANEL rows (fewer in decode). Scores of a panel are float32 [rows, 32], lanes are the keys of a page. Two
forms of both products: few rows take numbers straight from the page; many rows take a page that was widened once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import types

from ..args import PANEL
from ..features import target
from ..simd import math
from ..simd.emit import F32, I32, I64, Emitter, Vec
from ..simd.types import address, emitted
from .pages import PAGE, PageType

LANES = min(target().isa.lanes, 16)
_CACHE_LINE = 64  # bytes
# Accumulators of one register tile: four fifths of the register file, or half of it where it has 16 registers.
_BUDGET = {"amx_bf16": 16, "avx512_bf16": 16, "avx512_vnni": 16, "neon_dotprod": 16}.get(target().isa.name, 8)


def _tiles(rows: int, columns: int) -> list[tuple[range, range]]:
    """Rows and vectors of each register tile that a panel of rows x columns is cut into."""
    high = min(rows, 8 if _BUDGET == 16 and LANES == 16 else 4)
    wide = max(1, min(columns // LANES, _BUDGET // high))
    return [
        (range(r, min(r + high, rows)), range(c, min(c + wide, columns // LANES)))
        for r in range(0, rows, high)
        for c in range(0, columns // LANES, wide)
    ]


@dataclass(frozen=True)
class _Page:
    """What a product reads: numbers of one type, and whether the next page is asked for meanwhile. Pages lie in no
    order, so that the hardware cannot guess it.
    """

    type: PageType
    fetches: bool

    def vectors(self, e: Emitter, line: ir.Value, places: range) -> list[Vec]:
        """These vectors of a line, as float32."""
        return [self.type.read(e, line, LANES, LANES * place) for place in places]

    def fetch(self, e: Emitter, line: ir.Value, columns: int) -> None:
        """Ask for so many columns of a line of the next page."""
        if self.fetches:
            for offset in range(0, self.type.size * columns, _CACHE_LINE):
                e.prefetch(line, offset)


def _parts(e: Emitter, places: Vec, n: int) -> list[ir.Value]:
    return [e.b.extract_value(places.ll, i) for i in range(n)]


def _scores(e: Emitter, rows: int, page: _Page, places: list[ir.Value], key_dim: ir.Value) -> None:
    """out[rows, 32] = q * keys, with q stored [key_dim, rows] and keys [key_dim, 32]. Places: q, keys, out, ahead."""
    q, keys, out, ahead = places
    for mine, vectors in _tiles(rows, PAGE):

        def body(i: ir.Value, acc: list[Vec], mine: range = mine, vectors: range = vectors) -> list[Vec]:
            line, numbers = e.index(keys, i, PAGE * page.type.size), e.index(q, i, 4 * rows)
            if mine.start == vectors.start == 0:
                page.fetch(e, e.index(ahead, i, PAGE * page.type.size), PAGE)
            k = page.vectors(e, line, vectors)
            one = [e.splat(e.load(F32, 0, numbers, 4 * r), LANES) for r in mine]
            return [e.fma(k[c], one[r], acc[r * len(k) + c]) for r in range(len(one)) for c in range(len(k))]

        acc = e.loop(key_dim, [e.zero(F32, LANES)] * (len(mine) * len(vectors)), body)
        for i, value in enumerate(acc):
            r, c = mine[i // len(vectors)], vectors[i % len(vectors)]
            e.store(value, out, 4 * (PAGE * r + LANES * c))


@dataclass(frozen=True)
class _Values:
    """Addresses and strides (in bytes) of p [rows, 32], values [n, width], out [rows, width] and corrections [rows].

    `ahead` is where the values of the next page are.
    """

    p: ir.Value
    values: ir.Value
    value_stride: ir.Value
    out: ir.Value
    out_stride: ir.Value
    corrections: ir.Value
    ahead: ir.Value
    n: ir.Value


def _weigh(e: Emitter, rows: int, page: _Page, columns: int, first: ir.Value, at: _Values) -> None:
    """out = out * correction + p * values, for `columns` columns from `first` on."""
    values, out = e.index(at.values, first, page.type.size), e.index(at.out, first, 4)
    for mine, vectors in _tiles(rows, columns):
        lines = [e.b.add(out, e.b.mul(at.out_stride, ir.Constant(I64, r))) for r in mine]
        start = []
        for r, line in zip(mine, lines, strict=True):
            factor = e.splat(e.load(F32, 0, at.corrections, 4 * r), LANES)
            start += [e.load(F32, LANES, line, 4 * LANES * c) * factor for c in vectors]

        def body(k: ir.Value, acc: list[Vec], mine: range = mine, vectors: range = vectors) -> list[Vec]:
            line, numbers = e.b.add(values, e.b.mul(at.value_stride, k)), e.index(at.p, k, 4)
            if mine.start == vectors.start == 0:
                page.fetch(e, e.b.add(e.index(at.ahead, first, page.type.size), e.b.mul(at.value_stride, k)), columns)
            v = page.vectors(e, line, vectors)
            one = [e.splat(e.load(F32, 0, numbers, 4 * PAGE * r), LANES) for r in mine]
            return [e.fma(v[c], one[r], acc[r * len(v) + c]) for r in range(len(one)) for c in range(len(v))]

        for i, value in enumerate(e.loop(at.n, start, body)):
            e.store(value, lines[i // len(vectors)], 4 * LANES * vectors[i % len(vectors)])


def _weigh_all(e: Emitter, rows: int, page: _Page, width: ir.Value, at: _Values) -> None:
    """All columns, 32 at a time and the last 16; width is a multiple of 16."""
    twos = e.b.udiv(width, ir.Constant(I64, 32))

    def pair(i: ir.Value, _: list[Vec]) -> list[Vec]:
        _weigh(e, rows, page, 32, e.b.mul(i, ir.Constant(I64, 32)), at)
        return []

    def last(i: ir.Value, _: list[Vec]) -> list[Vec]:
        _weigh(e, rows, page, 16, e.b.mul(twos, ir.Constant(I64, 32)), at)
        return []

    e.loop(twos, [], pair)
    e.loop(e.b.and_(e.b.udiv(width, ir.Constant(I64, 16)), ir.Constant(I64, 1)), [], last)


def products(rows: int, type_: PageType, *, fetches: bool) -> tuple[Any, Any]:
    """The two products of a panel of `rows` rows with a page; `fetches`: the next one is asked for meanwhile.

    multiply_keys((q, keys, scores, next keys), key_dim): scores [rows, 32] from q [key_dim, rows]
    multiply_values(places, width, n): results from the first n scores and values; for places see `_Values`
    """
    page = _Page(type_, fetches)

    @emitted(types.void, types.UniTuple(address, 4), types.int64)
    def multiply_keys(e: Emitter, places: Vec, key_dim: Vec) -> None:
        _scores(e, rows, page, _parts(e, places, 4), key_dim.ll)

    @emitted(types.void, types.UniTuple(address, 7), types.int64, types.int64)
    def multiply_values(e: Emitter, places: Vec, width: Vec, n: Vec) -> None:
        _weigh_all(e, rows, page, width.ll, _Values(*_parts(e, places, 7), n.ll))

    return multiply_keys, multiply_values


@emitted(types.void, types.UniTuple(address, 4), types.int64)
def soften(e: Emitter, places: Vec, rows: Vec) -> None:
    """Online softmax of a panel: scores [rows, 32] become e^(score - maximum so far).

    places: scores; maxima [rows]; sums [rows, 16], each row's in 16 parts; corrections [PANEL]: what earlier results of
    a row are to be multiplied with, because its maximum has grown. Sums are corrected here.
    """
    at, maxima, sums, corrections = _parts(e, places, 4)

    def find_maximum(i: ir.Value, _: list[Vec]) -> list[Vec]:
        row, here = e.index(at, i, 4 * PAGE), e.index(maxima, i, 4)
        before = e.load(F32, 0, here)
        largest = e.largest(e.maximum(e.load(F32, 16, row), e.load(F32, 16, row, 64)))
        now = e.maximum(before, largest)
        e.store(now, here)
        e.store(before - now, e.index(corrections, i, 4))
        return []

    def exponentiate(i: ir.Value, _: list[Vec]) -> list[Vec]:
        row, total = e.index(at, i, 4 * PAGE), e.index(sums, i, 64)
        shift = e.splat(e.load(F32, 0, e.index(maxima, i, 4)), 16)
        p = [math.exp_negative(e, e.load(F32, 16, row, k) - shift) for k in (0, 64)]
        for k in (0, 1):
            e.store(p[k], row, 64 * k)
        factor = e.splat(e.load(F32, 0, e.index(corrections, i, 4)), 16)
        e.store(e.fma(e.load(F32, 16, total), factor, p[0] + p[1]), total)
        return []

    e.loop(rows.ll, [], find_maximum)
    e.store(math.exp_negative(e, e.load(F32, PANEL, corrections)), corrections)
    e.loop(rows.ll, [], exponentiate)


@emitted(types.void, address, types.int64, types.int64)
def hide(e: Emitter, row: Vec, first: Vec, stop: Vec) -> None:
    """Minus infinity for the scores of one row outside [first, stop)."""
    for k in (0, 16):
        lanes = e.const(I32, range(k, k + 16))
        low, high = (e.splat(Vec(e, e.b.trunc(v.ll, I32)), 16) for v in (first, stop))
        seen = e.b.and_(e.b.icmp_signed(">=", lanes.ll, low.ll), e.b.icmp_signed("<", lanes.ll, high.ll))
        value = e.load(F32, 16, row.ll, 4 * k)
        e.store(e.select(Vec(e, seen), value, e.like(value, float("-inf"))), row.ll, 4 * k)


@emitted(types.void, address, types.float32)
def cap_scores(e: Emitter, row: Vec, cap: Vec) -> None:
    """cap * tanh(score / cap) for the scores of one row."""
    inverse = e.scalar(F32, 1.0) / cap
    for k in (0, 64):
        e.store(math.tanh(e, e.load(F32, 16, row.ll, k) * inverse) * cap, row.ll, k)
