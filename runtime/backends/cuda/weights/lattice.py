"""Points of grids: IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ1_S IQ1_M. Definitions: `formats/quants/iq1.py`, iq2, iq3.

`table` holds a point in one word (of four weights) or two (of eight).
"""

from __future__ import annotations

import numpy as np

from ..simt import byte, device, half, half_of, short
from .bits import even_word, negated, same


@device
def _eight(table, point, signs, first, codes):  # type: ignore[no-untyped-def]
    """A point of eight weights, with the signs of eight bits."""
    codes[first] = negated(table[2 * point], signs & 15)
    codes[first + 1] = negated(table[2 * point + 1], signs >> 4)


@device
def _all_signs(seven):  # type: ignore[no-untyped-def]
    """Eight signs of seven: there is an even number of minus signs."""
    folded = seven ^ seven >> 4
    folded ^= folded >> 2
    return seven | ((folded ^ folded >> 1) & 1) << 7


@device
def _quarters(w, at, sub, d, scales):  # type: ignore[no-untyped-def]
    """The scales of both halves of a group, four bits each."""
    both = byte(w, at + sub)
    scales[0] = d * (np.float32(0.5) + np.float32(both & 15)) * np.float32(0.25)
    scales[1] = d * (np.float32(0.5) + np.float32(both >> 4)) * np.float32(0.25)
    scales[2] = np.float32(0.0)
    scales[3] = np.float32(0.0)


@device
def iq2_xxs(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    block, at = row + 66 * (group >> 3), row + 66 * (group >> 3) + 2 + 8 * (group & 7)
    signs = even_word(w, at + 4)
    for k in range(4):
        _eight(table, byte(w, at + k), _all_signs(signs >> 7 * k & 127), 2 * k, codes)
    scale = half(w, block) * (np.float32(0.5) + np.float32(signs >> 28 & 15)) * np.float32(0.25)
    same(scales, scale, np.float32(0.0))


@device
def iq2_xs(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 74 * (group >> 3), group & 7
    for k in range(4):
        bits = short(w, at + 2 + 8 * sub + 2 * k)
        _eight(table, bits & 511, _all_signs(bits >> 9), 2 * k, codes)
    _quarters(w, at + 66, sub, half(w, at), scales)


@device
def iq2_s(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 82 * (group >> 3), group & 7
    upper = byte(w, at + 66 + sub)
    for k in range(4):
        point = byte(w, at + 2 + 4 * sub + k) | (upper >> 2 * k & 3) << 8
        _eight(table, point, byte(w, at + 34 + 4 * sub + k), 2 * k, codes)
    _quarters(w, at + 74, sub, half(w, at), scales)


@device
def iq3_xxs(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 98 * (group >> 3), group & 7
    signs = even_word(w, at + 66 + 4 * sub)
    for k in range(8):
        eight = _all_signs(signs >> 7 * (k // 2) & 127)
        codes[k] = negated(table[byte(w, at + 2 + 8 * sub + k)], eight >> 4 * (k % 2) & 15)
    scale = half(w, at) * (np.float32(0.5) + np.float32(signs >> 28 & 15)) * np.float32(0.5)
    same(scales, scale, np.float32(0.0))


@device
def iq3_s(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 110 * (group >> 3), group & 7
    upper = byte(w, at + 66 + sub)
    for k in range(8):
        point = byte(w, at + 2 + 8 * sub + k) | (upper >> k & 1) << 8
        codes[k] = negated(table[point], byte(w, at + 74 + 4 * sub + k // 2) >> 4 * (k % 2) & 15)
    four = byte(w, at + 106 + (sub >> 1)) >> 4 * (sub & 1) & 15
    same(scales, half(w, at) * np.float32(1 + 2 * four), np.float32(0.0))


@device
def iq1_s(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 50 * (group >> 3), group & 7
    bits = short(w, at + 34 + 2 * sub)
    for k in range(4):
        point = byte(w, at + 2 + 4 * sub + k) | (bits >> 3 * k & 7) << 8
        codes[2 * k] = table[2 * point]
        codes[2 * k + 1] = table[2 * point + 1]
    scale = half(w, at) * np.float32(1 + 2 * (bits >> 12 & 7))
    same(scales, scale, scale * (np.float32(-0.125) if bits >> 15 else np.float32(0.125)))


@device
def iq1_m(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    """Points are shifted eight by eight: their codes are eighths, shifted up, and behind them all shifted down."""
    at, sub = row + 56 * (group >> 3), group & 7
    bits = np.int32(0)
    for k in range(4):
        bits |= short(w, at + 48 + 2 * k) >> 12 << 4 * k
        nibble = byte(w, at + 32 + 2 * sub + k // 2) >> 4 * (k % 2) & 15
        point = byte(w, at + 4 * sub + k) | (nibble & 7) << 8 | nibble >> 3 << 11
        codes[2 * k] = table[2 * point]
        codes[2 * k + 1] = table[2 * point + 1]
    d = half_of(bits) * np.float32(0.125)
    four = short(w, at + 48 + 2 * (sub >> 1)) >> 6 * (sub & 1)
    scales[0] = d * np.float32(1 + 2 * (four & 7))
    scales[1] = d * np.float32(1 + 2 * (four >> 3 & 7))
    scales[2] = np.float32(0.0)
    scales[3] = np.float32(0.0)
