"""Signs that are stored apart from the magnitudes of weights: a bit for each of 8, set where it is negative.

Types that store 7 of the 8 bits have an even number of minus signs, so that these tell the last one. Four times 7 bits
and four bits of a scale make a word.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .bits import Codes, unpack
from .codec import Floats

Words = npt.NDArray[np.uint32]

SIGNS: Floats = np.float32(1) - np.float32(2) * unpack(np.arange(256, dtype=np.uint8)[:, None], 1, 1)  # [bits] -> 8
SIGNS.flags.writeable = False
EVEN: Floats = SIGNS[np.arange(128) | np.where((SIGNS[:128] < 0).sum(axis=1) % 2, 128, 0)]  # [7 bits] -> 8
EVEN.flags.writeable = False


def unpack_words(words: Words) -> tuple[Words, Floats]:
    """uint32[n, groups] -> four times 7 signs, uint32[n, groups, 4]; scales as numbers, float32[n, groups]."""
    signs = words[:, :, None] >> np.array([0, 7, 14, 21], np.uint32) & np.uint32(127)
    return signs, (words >> np.uint32(28)).astype(np.float32)


def pack_words(signs: Codes, scales: Codes) -> Words:
    """The inverse: uint8[n * groups, 4] and uint8[n, groups] -> uint32[n, groups]."""
    fields = np.dstack([signs.reshape(*scales.shape, 4), scales]).astype(np.uint32)
    words: Words = np.bitwise_or.reduce(fields << np.array([0, 7, 14, 21, 28], np.uint32), axis=2)
    return words


def signed(scale: Floats, points: Floats, signs: Floats) -> Floats:
    """scale * points * signs: float32[n, groups], and float32[n, ..., size of a point] and float32[n, ..., 8]."""
    w = points.reshape(*scale.shape, -1)
    w *= scale[:, :, None]
    w *= signs.reshape(w.shape)
    return w.reshape(len(w), -1)
