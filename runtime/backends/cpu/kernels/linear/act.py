"""Activations to int8: x ~ scale * (code + zero), with a scale and a zero point for each 32 columns.

The range from smallest to largest (with 0 inside it) is cut into 254 steps. Around a symmetric range of the largest
magnitude, as ggml uses, this halves the step of a group with one outlier: on SmolLM2 Q4_1 the mean KL divergence from
float32 falls from 0.0030 to 0.0012. The zero point costs a product with the sums of weights, which are sums of codes.

A product of panels takes TILE tokens at once (gemm.py), and finds all that it needs of them in one place: a block for
each 32 columns, with four codes of each token, the next four of each, ..., then a number of each token, the next, ...
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types

from ...args import PACKED_BYTES
from ...features import target
from ...jit import kernel
from ...simd.emit import F32, I8, I32, Emitter, Vec
from ...simd.types import address, emitted
from ..share import rows_of, share

GRAIN = 8  # groups that a thread takes at least: half a cache line of their scales

TILE = target().isa.gemm_tile[1]  # tokens multiplied at once

# The numbers of a block: the scale, scale * zero, minus the sum of the codes, and the sum of the activations. Of sums
# there are three, for the 32 columns and for each half; NEGATIVES and SUMS say which is the first by the halves wanted.
SCALE, CENTRE, NEGATIVES, SUMS = 0, 1, {1: 2, 2: 3}, {1: 5, 2: 6}
GROUP_BYTES = PACKED_BYTES * TILE


def field_at(field: int, token: int) -> int:
    """Where in a block a number of a token is."""
    return 32 * TILE + 4 * (TILE * field + token)



def int8_of(e: Emitter, x_at: ir.Value) -> tuple[list[Vec], Vec, Vec]:
    """Codes (two vectors of 16 int32), zero point (int32) and scale of 32 float32."""
    nothing = e.scalar(F32, 0.0)
    x = [e.load(F32, 16, x_at, 64 * i) for i in (0, 1)]
    high = e.maximum(e.largest(e.maximum(*x)), nothing)
    low = e.maximum(e.largest(e.maximum(-x[0], -x[1])), nothing)  # minus the smallest
    span = high + low
    scale = span * (1.0 / 254.0)
    is_zero = Vec(e, e.b.fcmp_ordered("==", span.ll, nothing.ll))
    inverse = e.select(is_zero, nothing, e.scalar(F32, 254.0) / span)
    zero = e.round_even(e.splat((high - low) * 0.5 * inverse, 4)).lane(0)
    zeros = e.splat(zero, 16)
    codes = [_clamped(e, e.round_even(v * inverse) - zeros) for v in x]
    return codes, zero, scale


@emitted(types.void, address, address)
def _quantize32(e: Emitter, x_at: Vec, at: Vec) -> None:
    """32 float32 of a token into a block: `at` is where the token's first four codes go."""
    codes, zero, scale = int8_of(e, x_at.ll)
    words = e.bitcast(e.concat([e.truncate(values, I8) for values in codes]), I32, 8)
    for step in range(8):
        e.store(words.lane(step), at.ll, 4 * TILE * step)
    sums = [e.sum(values) for values in codes]
    total = sums[0] + sums[1]
    negatives = [-total, *(-s for s in sums)]
    exact = [as_float(e, total + zero * 32) * scale, *(as_float(e, s + zero * 16) * scale for s in sums)]
    for field, value in enumerate([scale, as_float(e, zero) * scale, *negatives, *exact]):
        e.store(value, at.ll, field_at(field, 0))


def as_float(e: Emitter, value: Vec) -> Vec:
    return Vec(e, e.b.sitofp(value.ll, F32))


def _clamped(e: Emitter, codes: Vec) -> Vec:
    """Rounding of the zero point may push the ends of the range one step out."""
    limit = e.like(codes, 127)
    too_big = Vec(e, e.b.icmp_signed(">", codes.ll, limit.ll))
    too_small = Vec(e, e.b.icmp_signed("<", codes.ll, (-limit).ll))
    return e.select(too_small, -limit, e.select(too_big, limit, codes))


@kernel("quantize")
def quantize(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """Each group of 32 on its own. Columns are a multiple of 32. Tokens past the last repeat it."""
    tokens, groups = rows_of(a, step), a.cols // 32
    start, stop = share((tokens + TILE - 1) // TILE * groups, 1, tid, nth)
    for i in range(start, stop):
        tile = i // groups
        x, block = a.x + np.uint64(128 * (i - tile * groups)), a.packed + np.uint64(GROUP_BYTES * i)
        for t in range(TILE):
            row = min(tile * TILE + t, tokens - 1)
            _quantize32(x + np.uint64(4 * row * a.cols), block + np.uint64(4 * t))
