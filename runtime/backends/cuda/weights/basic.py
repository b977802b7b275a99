"""Blocks of 32 with one scale: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0. The definition: `formats/quants/basic.py`."""

from __future__ import annotations

import numpy as np

from ..simt import device, half, word
from .bits import LOW, eight_words, even_word, four_words, same, spread


@device
def nibbles(w, at, codes):  # type: ignore[no-untyped-def]
    """16 bytes, which hold codes j and j + 16 in the halves of byte j."""
    four_words(w, at, 0, codes)
    for j in range(4):
        codes[j + 4] = codes[j] >> 4 & LOW
        codes[j] &= LOW


@device
def _fifth_bits(bits, codes):  # type: ignore[no-untyped-def]
    for j in range(8):
        codes[j] |= spread(bits >> 4 * j) << 4


@device
def q4_0(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at = row + 18 * group
    nibbles(w, at + 2, codes)
    d = half(w, at)
    same(scales, d, np.float32(-8.0) * d)


@device
def q4_1(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at = row + 20 * group
    nibbles(w, at + 4, codes)
    same(scales, half(w, at), half(w, at + 2))


@device
def q5_0(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at = row + 22 * group
    nibbles(w, at + 6, codes)
    _fifth_bits(even_word(w, at + 2), codes)
    d = half(w, at)
    same(scales, d, np.float32(-16.0) * d)


@device
def q5_1(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at = row + 24 * group
    nibbles(w, at + 8, codes)
    _fifth_bits(word(w, at + 4), codes)
    same(scales, half(w, at), half(w, at + 2))


@device
def q8_0(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at = row + 34 * group
    eight_words(w, at + 2, 0, codes)
    same(scales, half(w, at), np.float32(0.0))
