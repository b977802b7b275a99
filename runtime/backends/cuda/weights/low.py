"""One or two bits a weight: TQ1_0 TQ2_0 Q1_0 Q2_0. The definition: `formats/quants/low.py`."""

from __future__ import annotations

import numpy as np

from ..simt import byte, device, half
from .bits import EVEN, even_word, same, spread, spread_pairs, two_bits


@device
def tq2_0(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 66 * (group >> 3), group & 7
    two_bits(w, at + 32 * (sub >> 2), 2 * (sub & 3), codes)
    d = half(w, at + 64)
    same(scales, d, -d)


@device
def _trits(w, at, i):  # type: ignore[no-untyped-def]
    """Digits 0, 1 or 2 of weights i to i + 3 of a block, i a multiple of 4: of four neighbouring bytes the same digit.

    Bytes 0 to 31 hold weights up to 160, bytes 32 to 47 the next 80, bytes 48 to 51 the rest.
    """
    if i < 160:
        place, digit = i % 32, i // 32
    elif i < 240:
        place, digit = 32 + i % 16, (i - 160) // 16
    else:
        place, digit = 48, (i - 240) // 4
    # Digits fall out of a multiplication by 3, each after those before it. Two bytes at a time have room above them.
    power = 1 if digit == 0 else 3 if digit == 1 else 9 if digit == 2 else 27 if digit == 3 else 81
    four = even_word(w, at + place)
    even = ((four & EVEN) * power & EVEN) * 3 >> 8 & EVEN
    odd = ((four >> 8 & EVEN) * power & EVEN) * 3 >> 8 & EVEN
    return even | odd << 8


@device
def tq1_0(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, first = row + 54 * (group >> 3), 32 * (group & 7)
    for j in range(8):
        codes[j] = _trits(w, at, first + 4 * j)
    d = half(w, at + 52)
    same(scales, d, -d)


@device
def q1_0(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at = row + 18 * (group >> 2)
    bits = even_word(w, at + 2 + 4 * (group & 3))
    for j in range(8):
        codes[j] = spread(bits >> 4 * j)
    d = half(w, at)
    same(scales, np.float32(2.0) * d, -d)


@device
def q2_0(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at = row + 18 * (group >> 1)
    for j in range(8):
        codes[j] = spread_pairs(byte(w, at + 2 + 8 * (group & 1) + j))
    d = half(w, at)
    same(scales, d, -d)
