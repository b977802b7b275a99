"""Super-blocks of 256: Q2_K ... Q6_K. The definition: `formats/quants/k.py`."""

from __future__ import annotations

import numpy as np

from ..simt import byte, device, four, half, half_of
from .bits import LOW, ONE, nibbles_of, same, third_bits, two_bits, upper_pairs


@device
def _signed(bits):  # type: ignore[no-untyped-def]
    """A byte as a number from -128 on."""
    return bits - ((bits & 128) << 1)


@device
def q2_k(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 84 * (group >> 3), group & 7
    two_bits(w, at + 16 + 32 * (sub >> 2), 2 * (sub & 3), codes)
    d, least = half(w, at + 80), half(w, at + 82)
    for k in range(2):
        pair = byte(w, at + 2 * sub + k)
        scales[k] = d * np.float32(pair & 15)
        scales[2 + k] = -least * np.float32(pair >> 4)


@device
def q3_k(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 110 * (group >> 3), group & 7
    two_bits(w, at + 32 + 32 * (sub >> 2), 2 * (sub & 3), codes)
    third_bits(w, at, sub, codes)
    d = half(w, at + 108)
    for k in range(2):
        i = 2 * sub + k
        low = byte(w, at + 96 + (i & 7)) >> 4 * (i >> 3) & 15
        high = byte(w, at + 104 + (i & 3)) >> 2 * (i >> 2) & 3
        scales[k] = d * np.float32((low | high << 4) - 32)
        scales[2 + k] = np.float32(-4.0) * scales[k]


@device
def _six_bit_pair(w, at, sub, scales):  # type: ignore[no-untyped-def]
    """Scale and offset of a group of Q4_K or Q5_K; the float16 of both come first, then 12 bytes of six bits each.

    Groups 4 to 7 have their lower four bits in the last 4 bytes, and the upper two above those of groups 0 to 3.
    """
    both, first, second, third = four(w, at)
    shift = 8 * (sub & 3)
    scale, least, shared = first >> shift, second >> shift, third >> shift
    if sub < 4:
        scale, least = scale & 63, least & 63
    else:
        scale, least = shared & 15 | scale >> 2 & 48, shared >> 4 & 15 | least >> 2 & 48
    same(scales, half_of(both) * np.float32(scale), -half_of(both >> 16 & 0xFFFF) * np.float32(least))


@device
def _nibbles(w, at, sub, codes):  # type: ignore[no-untyped-def]
    """Groups 2 i and 2 i + 1 are the low and the high halves of 32 bytes."""
    for k in range(2):
        both = four(w, at + 32 * (sub >> 1) + 16 * k)
        for j in range(4):
            codes[4 * k + j] = both[j] >> 4 * (sub & 1) & LOW


@device
def q4_k(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 144 * (group >> 3), group & 7
    _nibbles(w, at + 16, sub, codes)
    _six_bit_pair(w, at, sub, scales)


@device
def q5_k(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 176 * (group >> 3), group & 7
    _nibbles(w, at + 48, sub, codes)
    for k in range(2):
        high = four(w, at + 16 + 16 * k)
        for j in range(4):
            codes[4 * k + j] |= (high[j] >> sub & ONE) << 4
    _six_bit_pair(w, at, sub, scales)


@device
def q6_k(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 210 * (group >> 3), group & 7
    half_at, quarter = sub >> 2, sub & 3
    nibbles_of(w, at + 64 * half_at + 32 * (quarter & 1), 4 * (quarter >> 1), codes)
    upper_pairs(w, at + 128 + 32 * half_at, 2 * quarter, codes)
    d = half(w, at + 208)
    for k in range(2):
        scales[k] = d * np.float32(_signed(byte(w, at + 192 + 2 * sub + k)))
        scales[2 + k] = np.float32(-32.0) * scales[k]
