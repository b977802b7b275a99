"""Four-bit codes that index a table: IQ4_NL IQ4_XS MXFP4 NVFP4 NF4 FP4.

The definitions: `formats/quants/iq.py`, `fp4.py`, `nf4.py`. Levels of NF4 and FP4 are no integers: they become the
nearest of 8 bits, which is what the CPU's kernels multiply with.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .....formats.quants.four_bit import EIGHT_BIT_UNITS, levels_of
from .....formats.quants.fp4 import E2M1_DOUBLED
from .....formats.quants.iq import IQ4_LEVELS
from ..simt import byte, device, float_of, half, short, word
from .bits import LOW, as_words, eight_words, four_words, looked_up, same

_I0, _I1, _I2, _I3 = as_words(IQ4_LEVELS)
_E0, _E1, _E2, _E3 = as_words(E2M1_DOUBLED)


@device
def _iq4(w, at, codes):  # type: ignore[no-untyped-def]
    four_words(w, at, 0, codes)
    for j in range(4):
        codes[j], codes[j + 4] = looked_up(codes[j], _I0, _I1, _I2, _I3)


@device
def iq4_nl(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at = row + 18 * group
    _iq4(w, at + 2, codes)
    same(scales, half(w, at), np.float32(0.0))


@device
def iq4_xs(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at, sub = row + 136 * (group >> 3), group & 7
    _iq4(w, at + 8 + 16 * sub, codes)
    six = byte(w, at + 4 + (sub >> 1)) >> 4 * (sub & 1) & 15 | (short(w, at + 2) >> 2 * sub & 3) << 4
    same(scales, half(w, at) * np.float32(six - 32), np.float32(0.0))


@device
def mxfp4(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at = row + 17 * group  # odd, in every second block
    four_words(w, at + 1, 0, codes)
    for j in range(4):
        codes[j], codes[j + 4] = looked_up(codes[j], _E0, _E1, _E2, _E3)
    e = byte(w, at)
    bits = (e - 1) << 23 if e > 1 else (1 << 21) << e  # 2^-128 and 2^-127 lie below the smallest exponent
    same(scales, float_of(bits), np.float32(0.0))


@device
def nvfp4(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
    at = row + 36 * (group >> 1)
    for k in range(2):
        sub = 2 * (group & 1) + k
        first = at + 4 + 8 * sub
        codes[4 * k], codes[4 * k + 2] = looked_up(word(w, first), _E0, _E1, _E2, _E3)
        codes[4 * k + 1], codes[4 * k + 3] = looked_up(word(w, first + 4), _E0, _E1, _E2, _E3)
        scales[k] = _half_ue4m3(byte(w, at + sub) & 127)
        scales[2 + k] = np.float32(0.0)


@device
def _half_ue4m3(code):  # type: ignore[no-untyped-def]
    """Half an unsigned E4M3; 127 is zero."""
    exponent, mantissa = code >> 3, code & 7
    if exponent == 0:
        return np.float32(mantissa) * np.float32(2.0**-10)
    if code == 127:
        return np.float32(0.0)
    return float_of((exponent + 119) << 23 | mantissa << 20)


def _of_levels(kind: str, block: int) -> Any:
    """NF4 or FP4 in blocks of 64 or 32: a float16 absmax, then codes j and j + block / 2 in the halves of byte j."""
    one = np.float32(1.0 / EIGHT_BIT_UNITS[kind])
    l0, l1, l2, l3 = as_words(np.rint(levels_of(kind) * np.float32(EIGHT_BIT_UNITS[kind])))

    @device
    def unpack_32(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
        at = row + 18 * group
        four_words(w, at + 2, 0, codes)
        for j in range(4):
            codes[j], codes[j + 4] = looked_up(codes[j], l0, l1, l2, l3)
        same(scales, half(w, at) * one, np.float32(0.0))

    @device
    def unpack_64(w, row, group, table, codes, scales):  # type: ignore[no-untyped-def]
        at = row + 34 * (group >> 1)
        eight_words(w, at + 2, 4 * (group & 1), codes)
        for j in range(0, 8, 2):
            both = codes[j] & LOW | (codes[j + 1] & LOW) << 4
            codes[j], codes[j + 1] = looked_up(both, l0, l1, l2, l3)
        same(scales, half(w, at) * one, np.float32(0.0))

    return unpack_64 if block == 64 else unpack_32


nf4, nf4_32 = _of_levels("nf4", 64), _of_levels("nf4", 32)
fp4, fp4_32 = _of_levels("fp4", 64), _of_levels("fp4", 32)
