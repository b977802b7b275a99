"""The corrections of a product of panels (terms.py): a panel's terms as int16, and their products with those of a tile.

Lines of pairs, a row in each lane: of types with a fixed zero point the mean weights of 32 columns and the next 32, of
others a mean weight and a bias, and where biases are of 16 columns a mean weight and nothing, then the two biases.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from ...simd.dot import dot_pairs
from ...simd.emit import F32, I32, I64, Emitter, Vec
from ...simd.types import address, emitted
from .act import CENTRE_SUM, CENTRES, HALVES, TILE, UNIT, terms_at
from .panel import LANES, REGISTERS, ROWS
from .terms import CHAIN, W_MOST, int16_of, pair_of, units_of
from .weights import WeightType

LINE = 4 * ROWS


def _minimum(e: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    return e.b.select(e.b.icmp_signed("<", a, b), a, b)


def _add(e: Emitter, a: ir.Value, n: int) -> ir.Value:
    return e.b.add(a, ir.Constant(I64, n))


class _Lines:
    """How the lines of a type follow each other: `fields` of the activations for the lines of one step."""

    def __init__(self, kind: type[WeightType]) -> None:
        self.parts = 32 // kind.group if kind.offset is None else 0  # biases in 32 columns
        self.groups = 1 if self.parts else 2  # of 32 columns, in a step
        self.fields = {0: [CENTRES], 1: [CENTRE_SUM], 2: [CENTRE_SUM, HALVES]}[self.parts]

    def steps(self, e: Emitter, groups: ir.Value) -> ir.Value:
        return e.b.udiv(_add(e, groups, self.groups - 1), ir.Constant(I64, self.groups))


def row_terms(kind: type[WeightType]) -> Any:
    """f((means, biases, lines, units), groups): lines of pairs, and each row's unit, from float32 lines of a panel."""
    form = _Lines(kind)

    @emitted(types.void, types.UniTuple(address, 4), types.int64)
    def make(e: Emitter, places: Vec, groups: Vec) -> None:
        means, biases, lines, units = (e.b.extract_value(places.ll, i) for i in range(4))

        def terms(g: ir.Value, r: int) -> list[Vec]:
            """The mean weight of a group, and its biases."""
            found = [e.load(F32, LANES, e.index(means, g, LINE), 4 * LANES * r)]
            at = e.index(biases, g, LINE * form.parts)
            return found + [e.load(F32, LANES, at, LINE * part + 4 * LANES * r) for part in range(form.parts)]

        def largest(g: ir.Value, most: list[Vec]) -> list[Vec]:
            for r in range(REGISTERS):
                for term in terms(g, r):
                    most[r] = e.maximum(most[r], e.absolute(term))
            return most

        most = e.loop(groups.ll, [e.zero(F32, LANES)] * REGISTERS, largest)
        inverse, unit = zip(*(units_of(e, m, W_MOST) for m in most), strict=True)
        for r in range(REGISTERS):
            e.store(unit[r], units, 4 * LANES * r)
        nothing = e.zero(I32, LANES)

        def pairs(i: ir.Value, r: int) -> list[Vec]:
            if form.parts:
                mean, *rest = (int16_of(e, term, inverse[r]) for term in terms(i, r))
                return [pair_of(mean, rest[0])] if form.parts == 1 else [pair_of(mean, nothing), pair_of(*rest)]
            first = e.b.mul(i, ir.Constant(I64, 2))
            second = _minimum(e, _add(e, first, 1), _add(e, groups.ll, -1))
            two = [int16_of(e, terms(g, r)[0], inverse[r]) for g in (first, second)]
            both, exists = pair_of(*two), e.b.icmp_signed("<", first, second)
            return [e.select(e.splat(Vec(e, exists), LANES), both, both & 0xFFFF)]

        def store(i: ir.Value, _: list[Vec]) -> list[Vec]:
            to = e.index(lines, i, LINE * len(form.fields))
            for r in range(REGISTERS):
                for k, line in enumerate(pairs(i, r)):
                    e.store(line, to, LINE * k + 4 * LANES * r)
            return []

        e.loop(form.steps(e, groups.ll), [], store)

    return make


def corrections(
    e: Emitter,
    kind: type[WeightType],
    terms: tuple[ir.Value, ir.Value],
    x: ir.Value,
    groups: ir.Value,
    first: list[Vec],
) -> list[Vec]:
    """`first` (a vector for each register) plus the corrections of a tile. List: [register * TILE + token].

    terms: addresses of the lines and of the rows' units. Before the products of codes, not among them: there they would
    take the registers of which a tile is made.
    """
    lines, units = terms
    form = _Lines(kind)
    steps, chain = form.steps(e, groups), CHAIN // len(form.fields)
    n, places = REGISTERS * TILE, [terms_at(e, x, groups, field) for field in form.fields]

    def step(i: ir.Value, sums: list[Vec]) -> list[Vec]:
        line = e.index(lines, i, LINE * len(form.fields))
        for k, place in enumerate(places):
            token = e.index(place, i, 4 * TILE)
            w = [e.load(I32, LANES, line, LINE * k + 4 * LANES * r) for r in range(REGISTERS)]
            pair = [e.splat(e.load(I32, 0, token, 4 * t), LANES) for t in range(TILE)]
            sums = [dot_pairs(e, total, w[j // TILE], pair[j % TILE]) for j, total in enumerate(sums)]
        return sums

    def chained(begin: ir.Value, count: ir.Value | None, totals: list[Vec]) -> list[Vec]:
        """`count` steps in int32, None: a whole chain, unrolled."""
        sums = [e.zero(I32, LANES)] * n
        if count is not None:
            sums = e.loop(count, sums, lambda i, s: step(e.b.add(begin, i), s))
        else:
            for i in range(chain):
                sums = step(_add(e, begin, i), sums)
        return [total + e.to_float(s) for total, s in zip(totals, sums, strict=True)]

    length = ir.Constant(I64, chain)
    chains = e.b.udiv(steps, length)
    totals = [e.zero(F32, LANES)] * n
    totals = e.loop(chains, totals, lambda c, found: chained(e.b.mul(c, length), None, found))
    begin = e.b.mul(chains, length)
    totals = chained(begin, e.b.sub(steps, begin), totals)
    unit = [e.load(F32, LANES, units, 4 * LANES * r) for r in range(REGISTERS)]
    unit_at = terms_at(e, x, groups, UNIT)
    x_unit = [e.splat(e.load(F32, 0, unit_at, 4 * t), LANES) for t in range(TILE)]
    return [e.fma(total * unit[j // TILE], x_unit[j % TILE], first[j // TILE]) for j, total in enumerate(totals)]
