"""Four-bit codes with an absmax, as bitsandbytes makes them: NF4 and FP4. Arithmetic only; layouts are in nf4.py.

A weight is level[code] * absmax, its code that of the level nearest to weight / absmax. The levels are those of
`formats/gguf/kinds.py`.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from ..gguf.kinds import CODEBOOKS

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]
_LEAST = np.float32(1e-38)  # an absmax below it counts as it, so that 1 / absmax is finite

# Kernels multiply with levels of eight bits. What a level of 1 is in units of their codes: of those that fit, the one
# that rounds levels best where weights are normal (tests/oracle/test_kernels_linear.py).
EIGHT_BIT_UNITS = {"nf4": 124.1, "fp4": 120.0}


@functools.cache
def levels_of(codes: str) -> Floats:
    """What the sixteen codes of "nf4" or "fp4" stand for, float32[16]. Not to be changed."""
    levels: Floats = np.array(CODEBOOKS[codes], np.float32) + np.float32(0)  # no minus zero
    levels.flags.writeable = False
    return levels


@functools.cache
def _borders(codes: str) -> tuple[Floats, Codes]:
    """Between levels in order, float32[15], and the codes of the levels in that order, uint8[16].

    FP4 has two zeros. What is between them, from half its smallest level below to half of it above, gets the first up
    to zero itself, and the second beyond.
    """
    levels = levels_of(codes)
    order = np.argsort(levels, kind="stable")
    ordered = levels[order]
    return (ordered[:-1] + ordered[1:]) / np.float32(2), order.astype(np.uint8)


def nearest_codes(unit: Floats, codes: str) -> Codes:
    """Codes of numbers from -1 to 1; of two levels equally near the lower one."""
    borders, order = _borders(codes)
    place = np.zeros(unit.shape, np.uint8)
    for border in borders:  # faster than a search
        place += (unit > border).view(np.uint8)
    return place if codes == "nf4" else order[place]


def quantize(x: Floats, codes: str) -> tuple[Codes, Floats]:
    """Whole blocks, float32[n, size] -> codes uint8[n, size] and absmax float32[n]."""
    absmax = np.abs(x).max(axis=1)
    unit = x * (np.float32(1) / np.maximum(absmax, _LEAST))[:, None]
    np.clip(unit, np.float32(-1), np.float32(1), out=unit)
    return nearest_codes(unit, codes), absmax


def quantize_flat(x: Floats, codes: str, size: int) -> tuple[Codes, Floats]:
    """Weights of any shape one after the other in blocks of `size`, the last of which may be shorter.

    Returns codes uint8[n] and absmax float32[ceil(n / size)]. The last block is divided where others are multiplied
    with a reciprocal, and its absmax is at least 1e-38: so does bitsandbytes.
    """
    flat = x.reshape(-1)
    whole = flat.size // size * size
    found, absmax = quantize(flat[:whole].reshape(-1, size), codes)
    if whole == flat.size:
        return found.reshape(-1), absmax
    rest = flat[whole:]
    last = np.maximum(np.abs(rest).max(), _LEAST)
    unit = np.clip(rest / last, np.float32(-1), np.float32(1))
    return np.append(found.reshape(-1), nearest_codes(unit, codes)), np.append(absmax, last)


def dequantize_flat(found: Codes, absmax: Floats, codes: str, size: int) -> Floats:
    """The inverse: codes uint8[n] and absmax float32[ceil(n / size)] -> float32[n]."""
    weights: Floats = levels_of(codes)[found] * np.repeat(absmax, size)[: found.size]
    return weights
