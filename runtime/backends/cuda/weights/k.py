"""Super-blocks of 256: Q2_K ... Q6_K. The definition: `formats/quants/k.py`."""

from __future__ import annotations

import numpy as np

from ..simt import byte, device, half, word
from .bits import LOW, ONE, TWO, same, two_bits


@device
def _signed(bits):  # type: ignore[no-untyped-def]
    """A byte as a number from -128 on."""
    return bits - ((bits & 128) << 1)


@device
def q2_k(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 84 * (group // 8), group % 8
    two_bits(w, at + 16 + 32 * (sub // 4), 2 * (sub % 4), codes)
    d, least = half(w, at + 80), half(w, at + 82)
    for k in range(2):
        pair = byte(w, at + 2 * sub + k)
        scales[k] = d * np.float32(pair & 15)
        scales[2 + k] = -least * np.float32(pair >> 4)


@device
def q3_k(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 110 * (group // 8), group % 8
    two_bits(w, at + 32 + 32 * (sub // 4), 2 * (sub % 4), codes)
    for j in range(8):
        codes[j] |= (word(w, at + 4 * j) >> sub & ONE) << 2
    d = half(w, at + 108)
    for k in range(2):
        i = 2 * sub + k
        low = byte(w, at + 96 + i % 8) >> 4 * (i // 8) & 15
        high = byte(w, at + 104 + i % 4) >> 2 * (i // 4) & 3
        scales[k] = d * np.float32((low | high << 4) - 32)
        scales[2 + k] = np.float32(-4.0) * scales[k]


@device
def _six_bit_pair(w, at, sub, scales):  # type: ignore[no-untyped-def]
    """Scale and offset of a group of Q4_K or Q5_K; the float16 of both come first, then 12 bytes of six bits each."""
    if sub < 4:
        scale, least = byte(w, at + 4 + sub) & 63, byte(w, at + 8 + sub) & 63
    else:
        shared = byte(w, at + 8 + sub)
        scale = shared & 15 | byte(w, at + sub) >> 6 << 4
        least = shared >> 4 | byte(w, at + 4 + sub) >> 6 << 4
    same(scales, half(w, at) * np.float32(scale), -half(w, at + 2) * np.float32(least))


@device
def q4_k(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 144 * (group // 8), group % 8
    for j in range(8):
        codes[j] = word(w, at + 16 + 32 * (sub // 2) + 4 * j) >> 4 * (sub % 2) & LOW
    _six_bit_pair(w, at, sub, scales)


@device
def q5_k(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 176 * (group // 8), group % 8
    for j in range(8):
        low = word(w, at + 48 + 32 * (sub // 2) + 4 * j) >> 4 * (sub % 2) & LOW
        codes[j] = low | (word(w, at + 16 + 4 * j) >> sub & ONE) << 4
    _six_bit_pair(w, at, sub, scales)


@device
def q6_k(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 210 * (group // 8), group % 8
    half_at, quarter = sub // 4, sub % 4
    for j in range(8):
        low = word(w, at + 64 * half_at + 32 * (quarter % 2) + 4 * j) >> 4 * (quarter // 2) & LOW
        high = word(w, at + 128 + 32 * half_at + 4 * j) >> 2 * quarter & TWO
        codes[j] = low | high << 4
    d = half(w, at + 208)
    for k in range(2):
        scales[k] = d * np.float32(_signed(byte(w, at + 192 + 2 * sub + k)))
        scales[2 + k] = np.float32(-32.0) * scales[k]
