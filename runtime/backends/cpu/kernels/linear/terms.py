"""Corrections of a product of panels: what is not a product of codes, two multiply-adds in an instruction.

A weight is scale * code + bias and an activation scale * (code + zero), with codes that are counted from the middle. So
a product has, beside the products of codes, two more for each 32 columns, of a number of the row and one of the token:

    mean weight (without the bias) * 32 * centre,    bias * sum of the activations

As fused multiply-adds they would be a sixth of all arithmetic (Q4_K on Zen 4: 2 of 12 instructions for 32 columns). As
int16, in units of a row's largest number and of a token's, pairs of them take one instruction (vpdpwssd), and sums are
exact. A term is off by 2^-14 of the row's largest and 2^-16 of the token's, where an int8 activation is off by 2^-9 of
the largest of its group.
"""

from __future__ import annotations

from ...simd.emit import Emitter, Vec

# int32 holds the sum of CHAIN pairs of the largest.
W_MOST, X_MOST, CHAIN = 8191, 32767, 4
assert 2 * CHAIN * W_MOST * X_MOST < 1 << 31
_NOTHING = 1e-30


def units_of(e: Emitter, largest: Vec, most: int) -> tuple[Vec, Vec]:
    """(1 / unit, unit) that make `most` of the largest magnitude."""
    scale = e.like(largest, float(most)) / e.maximum(largest, _NOTHING)
    return scale, e.maximum(largest, _NOTHING) * (1.0 / most)


def int16_of(e: Emitter, value: Vec, inverse: Vec) -> Vec:
    return e.round_even(value * inverse)


def pair_of(low: Vec, high: Vec) -> Vec:
    """Two int16, in int32 lanes each, as the halves of these lanes."""
    return (low & 0xFFFF) | (high << 16)
