"""Why blocks differ from ggml's, as far as it is known: each reason is a question about blocks that differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

UNEXPLAINED = "unexplained"


@dataclass(frozen=True)
class Blocks:
    """Blocks that differ: the weights float32 [n, block_size], and the bytes of each side, uint8 [n, block_bytes]."""

    type: GGMLType
    x: Floats
    ours: Bytes
    theirs: Bytes

    def mean_the_same(self) -> Mask:
        ours, theirs = (CODECS[self.type].decode(side) for side in (self.ours, self.theirs))
        same: Mask = (ours == theirs).all(axis=1)
        return same


def _scale_overflows(b: Blocks) -> Mask:
    largest = np.abs(b.x).max(axis=1)
    return b.mean_the_same() & (largest > 0) & (largest < 127 * 2.0**-128)


def _holds_a_group_of_zeros(b: Blocks) -> Mask:
    if b.type is not GGMLType.IQ3_S:
        return np.zeros(len(b.x), bool)
    is_zero = (b.x.reshape(len(b.x), 8, 32) == 0).all(axis=2)
    found: Mask = is_zero.any(axis=1) & ~is_zero.all(axis=1)
    return found


REASONS: dict[str, tuple[Callable[[Blocks], Mask], str]] = {
    "undefined conversion": (
        _scale_overflows,
        "The weights are so small that 1 / scale is infinite, and C makes integers of infinity or NaN, which it does "
        "not define. The stored scale is zero, so the weights are zero whatever the codes; ours are those of zeros.",
    ),
    "group of zeros": (
        _holds_a_group_of_zeros,
        "ggml goes on to the next group of an IQ3_S block without having moved on in the block where a group is all "
        "zeros, and so stores those behind it one place too early. Ours are stored where they are read.",
    ),
}


def reasons(blocks: Blocks) -> list[str]:
    """Of each block the first that holds."""
    found = np.full(len(blocks.x), UNEXPLAINED, object)
    for name, (holds, _) in reversed(REASONS.items()):
        found[holds(blocks)] = name
    return [str(name) for name in found]
