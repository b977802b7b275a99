"""Activations to int8: x ~ scale * (code + zero), with a scale and a zero point for each 32 columns.

The range from smallest to largest (with 0 inside it) is cut into 254 steps. Around a symmetric range of the largest
magnitude, as ggml uses, this halves the step of a group with one outlier (`python -m benchmarks.accuracy` has both
programs' divergences). The zero point costs a product with the sums of weights, which are sums of codes; products
of rows do without it (packets.py).

A product of panels takes TILE tokens at once (gemm.py), and finds all that it needs of them in one place: a block for
each 32 columns, with four codes of each token, the next four of each, ..., then a number of each token, the next, ...
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba.core import types

from ...args import PACKED_BYTES
from ...features import target
from ...jit import kernel
from ...simd.emit import F32, I8, I32, I64, Emitter, Vec
from ...simd.tiles import transposed
from ...simd.types import address, emitted
from ..share import rows_of, share
from .terms import X_MOST, int16_of, pair_of, units_of

GRAIN = 8  # groups that a thread takes at least: half a cache line of their scales

TILE = target().isa.gemm_tile[1]  # tokens multiplied at once
SPACES = 1 << (TILE - 1).bit_length()  # the same, up to a power of two

# The fixed zero point of all codes in panels, where the dot product takes all 8 bits: then what it adds to a sum is the
# same number for all types, and is not shifted in the microkernel. Elsewhere types keep their own.
OFFSET = 128 if target().isa.dot == "vpdpbusd" else None

# The numbers of a block, behind its codes: the scale, and minus the sum of the codes (times OFFSET): of all 32 columns,
# and of each half; NEGATIVES says which is the first by the halves wanted.
SCALE, NEGATIVES = 0, {1: 1, 2: 2}
BLOCK_BYTES = 48 * TILE
GROUP_BYTES = PACKED_BYTES * TILE  # with the terms

# The terms of corrections (terms.py), behind the blocks of a tile, in units of a token's largest: pairs of int16. First
# for each block the centre (32 * scale * zero) and the sum of the activations, then for each block the sums of its
# halves, then for every two blocks their centres, and last the unit (float32).
CENTRE_SUM, HALVES, CENTRES, UNIT = 0, 1, 2, 3


def field_at(field: int, token: int) -> int:
    """Where in a block a number of a token is."""
    return 32 * TILE + 4 * (TILE * field + token)


def terms_at(e: Emitter, tile: ir.Value, groups: ir.Value, field: int) -> ir.Value:
    """Where the terms of a kind begin, TILE in a line: `tile` is where the blocks do."""
    return e.index(tile, groups, BLOCK_BYTES + 4 * TILE * field)


def _over_lanes(vectors: list[Vec], op: Callable[[Vec, Vec], Vec]) -> Vec:
    """What `op` makes of all lanes of each vector (a power of two of them), as a lane of one.

    Halves are put together as long as there are two vectors, so that all take hardly more steps than one.
    """
    e, width = vectors[0].e, vectors[0].n  # lanes that each of the vectors has in what it became part of
    while width > 1:
        n, width = vectors[0].n, width // 2
        if len(vectors) > 1:
            half = [i for i in range(2 * n) if i // width % 2 == 0]
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [op(e.shuffle(a, b, half), e.shuffle(a, b, [i + width for i in half])) for a, b in pairs]
        else:
            half = [i for i in range(n) if i // width % 2 == 0]
            vectors = [op(vectors[0].take(half), vectors[0].take([i + width for i in half]))]
    return vectors[0]


def _quantize_block(e: Emitter, rows: list[ir.Value], block: ir.Value) -> list[Vec]:
    """32 float32 of each of SPACES rows into a block, faster than row by row. Returns the terms, a lane for each."""
    x = [[e.load(F32, 16, row, 64 * i) for i in (0, 1)] for row in rows]
    high = e.maximum(_over_lanes([e.maximum(*v) for v in x], e.maximum), 0.0)
    low = e.maximum(_over_lanes([e.maximum(-v[0], -v[1]) for v in x], e.maximum), 0.0)  # minus the smallest
    span = high + low
    scale = span * (1.0 / 254.0)
    is_zero = Vec(e, e.b.fcmp_ordered("==", span.ll, e.like(span, 0.0).ll))
    inverse = e.select(is_zero, e.like(span, 0.0), e.like(span, 254.0) / span)
    zero = e.round_even((high - low) * 0.5 * inverse)
    codes = []
    for t, v in enumerate(x):
        factor, middle = inverse.take([t] * 16), zero.take([t] * 16)
        codes.append([clamped(e, e.round_even(one * factor) - middle) for one in v])
    words = [e.bitcast(e.concat([e.truncate(one, I8) for one in two]), I32, 8) for two in codes]
    lines = [transposed([w.take(range(c, c + SPACES)) for w in words]) for c in range(0, 8, SPACES)]
    sums = [_over_lanes([two[i] for two in codes], lambda a, b: a + b) for i in (0, 1)]
    total = sums[0] + sums[1]
    numbers = [scale, *(-(s * (OFFSET or 1)) for s in (total, *sums))]
    for i, line in enumerate([*(line for some in lines for line in some), *numbers]):
        e.store(line.take(range(TILE)), block, 4 * TILE * i)
    return [e.to_float(n) * scale for n in (zero * 32, total + zero * 32, *(s + zero * 16 for s in sums))]


@emitted(types.void, address, address, types.int64, types.int64, types.int64)
def _quantize_tile(e: Emitter, x: Vec, tile: Vec, stride: Vec, last: Vec, groups: Vec) -> None:
    """`groups` times 32 float32 of tokens that are `stride` bytes apart; those past the last repeat it."""
    rows = rows_from(e, x, stride, last, TILE)
    rows += [rows[0]] * (SPACES - TILE)
    places = [terms_at(e, tile.ll, groups.ll, k) for k in range(4)]

    def body(i: ir.Value, largest: list[Vec]) -> list[Vec]:
        terms = _quantize_block(e, [e.index(row, i, 128) for row in rows], e.index(tile.ll, i, BLOCK_BYTES))
        for place, term in zip(places, terms, strict=True):
            e.store(term.take(range(TILE)), e.index(place, i, 4 * TILE))
            largest = [e.maximum(largest[0], e.absolute(term))]
        return largest

    largest = e.loop(groups.ll, [e.zero(F32, SPACES)], body)[0]
    _round_terms(e, places, largest.take(range(TILE)), groups.ll)


def _round_terms(e: Emitter, places: list[ir.Value], largest: Vec, groups: ir.Value) -> None:
    """The terms of all blocks of a tile as int16, in units of a token's largest one."""
    inverse, unit = units_of(e, largest, X_MOST)
    one, two = (ir.Constant(I64, n) for n in (1, 2))

    def body(i: ir.Value, _: list[Vec]) -> list[Vec]:
        first = e.b.mul(i, two)
        exists = e.b.icmp_signed("<", first, e.b.sub(groups, one))
        blocks = [first, e.b.select(exists, e.b.add(first, one), first)]
        lines = [[e.load(F32, TILE, e.index(place, g, 4 * TILE)) for place in places] for g in blocks]
        numbers = [[int16_of(e, line, inverse) for line in block] for block in lines]
        both = pair_of(numbers[0][0], numbers[1][0])
        for g, (centre, total, *halves) in zip(blocks, numbers, strict=True):
            e.store(pair_of(centre, total), e.index(places[CENTRE_SUM], g, 4 * TILE))
            e.store(pair_of(*halves), e.index(places[HALVES], g, 4 * TILE))
        both = e.select(e.splat(Vec(e, exists), TILE), both, both & 0xFFFF)
        e.store(both, e.index(places[CENTRES], i, 4 * TILE))
        return []

    e.loop(e.b.udiv(e.b.add(groups, one), two), [], body)
    e.store(unit, places[UNIT])


def rows_from(e: Emitter, first: Vec, stride: Vec, last: Vec, n: int) -> list[ir.Value]:
    """Addresses of n rows; those past the last repeat it."""
    numbers = [ir.Constant(I64, r) for r in range(n)]
    kept = [e.b.select(e.b.icmp_signed("<", number, last.ll), number, last.ll) for number in numbers]
    return [e.b.add(first.ll, e.b.mul(stride.ll, number)) for number in kept]


def clamped(e: Emitter, codes: Vec) -> Vec:
    """Rounding of the zero point may push the ends of the range one step out."""
    limit = e.like(codes, 127)
    too_big = Vec(e, e.b.icmp_signed(">", codes.ll, limit.ll))
    too_small = Vec(e, e.b.icmp_signed("<", codes.ll, (-limit).ll))
    return e.select(too_small, -limit, e.select(too_big, limit, codes))


@kernel("quantize")
def quantize(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """Each group of 32 on its own. Columns are a multiple of 32. Tokens past the last repeat it."""
    tokens, groups, stride = rows_of(a, step), a.cols // 32, np.int64(4 * a.cols)
    start, stop = share((tokens + TILE - 1) // TILE, 1, tid, nth)
    for tile in range(start, stop):
        x, blocks = a.x + np.uint64(tile * TILE * stride), a.packed + np.uint64(GROUP_BYTES * groups * tile)
        _quantize_tile(x, blocks, stride, tokens - 1 - tile * TILE, groups)
