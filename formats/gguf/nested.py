"""Double quantization, as QLoRA has it: the absmaxes of blocks as codes of eight bits, with an absmax for each 256.

absmax[i] = map[code[i]] * nested[i // 256] + offset. The map has a sign, seven orders of magnitude, and the fewer steps
in one the smaller it is: bitsandbytes' "dynamic" data type.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .kinds import NESTED_SIZE

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
_STEPS = 1 << 16  # into which bitsandbytes cuts -1 to 1 before it looks up a code


@dataclass(frozen=True)
class Nested:
    """n quantized absmaxes: codes uint8[n], absmax float32[ceil(n / 256)], map float32[256]."""

    codes: Codes
    absmax: Floats
    offset: np.float32
    map: Floats

    def values(self) -> Floats:
        """The absmaxes that these stand for, float32[n], rounded as bitsandbytes rounds them."""
        scale = np.repeat(self.absmax, NESTED_SIZE)[: len(self.codes)]
        values: Floats = self.map[self.codes] * scale + self.offset
        return values


@functools.cache
def dynamic_map() -> Floats:
    """The 256 values that codes stand for, from the smallest. Not to be changed."""
    values = [0.0, 1.0]
    low, high = np.float32(0.1), np.float32(1)
    for exponent in range(7):
        n = 1 << exponent
        # As torch.linspace: from the nearer end, with one rounding.
        step, k = float((high - low) / np.float32(n)), np.arange(n + 1)
        bounds = np.where(k < (n + 1) // 2, low + step * k, high - step * (n - k)).astype(np.float32)
        means = np.float32(10.0 ** (exponent - 6)) * ((bounds[:-1] + bounds[1:]) / np.float32(2))
        values += [*means.tolist(), *(-means).tolist()]
    found = np.array(sorted(values), np.float32)
    found.flags.writeable = False
    return found


@functools.cache
def _code_of_step() -> Codes:
    """The code nearest to each of the steps; at a border the lower one."""
    levels = dynamic_map()
    steps = np.arange(_STEPS) * 2 / (_STEPS - 1) - 1
    return np.searchsorted((levels[:-1] + levels[1:]) / np.float32(2), steps, side="left").astype(np.uint8)


def nest(absmax: Floats, offset: np.float32 | None = None) -> Nested:
    """Quantize absmaxes, float32[n], to the codes that bitsandbytes gives them on a CPU.

    Its offset is their mean, which torch adds up in an order that depends on the machine and its threads; here it is
    the exact mean, rounded, where no other is given.
    """
    if offset is None:
        offset = np.float32(absmax.mean(dtype=np.float64)) if absmax.size else np.float32(0)
    rest = absmax - offset
    blocks = np.pad(rest, (0, -rest.size % NESTED_SIZE)).reshape(-1, NESTED_SIZE)
    most = np.abs(blocks).max(axis=1, initial=0).astype(np.float32)
    inverse = np.divide(np.float32(1), most, out=np.zeros_like(most), where=most != 0)
    unit = np.clip(blocks * inverse[:, None], np.float32(-1), np.float32(1))
    half = (unit + np.float32(1)) * np.float32(0.5)
    # One rounding, as a fused multiply-add has it; the product is exact in float64.
    step = (half.astype(np.float64) * (_STEPS - 1) + 0.5).astype(np.float32).astype(np.int64)
    codes = np.where(most[:, None] > 0, _code_of_step()[step], np.uint8(0)).reshape(-1)[: rest.size]
    return Nested(codes, most, offset, dynamic_map())
