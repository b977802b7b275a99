"""Bit fields narrower than a byte, as every ggml layout stores them.

All of them follow one rule with two numbers, `width` and `run`: `run` neighbouring bytes hold `run` elements in their
lowest `width` bits, the next `run` elements in the `width` bits above, and so on; then come the next `run` bytes:

    width 4, run 16    the nibbles of Q4_0: byte j holds element j (low) and element j + 16 (high)
    width 2, run 32    Q2_K: byte l of a half holds elements l, l + 32, l + 64, l + 96 of that half
    width 1, run 1     the fifth bits of Q5_0: plain little-endian order
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]


def unpack(packed: Codes, width: int, run: int) -> Codes:
    """uint8[n, bytes] -> uint8[n, bytes * 8 // width], each value below 2**width; `run` divides `bytes`."""
    n, size = packed.shape
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    fields = packed.reshape(n, size // run, 1, run) >> shifts
    fields &= np.uint8((1 << width) - 1)
    return fields.reshape(n, size * len(shifts))


def pack(codes: npt.NDArray[np.integer[Any]], width: int, run: int) -> Codes:
    """The inverse of `unpack`. Every code must be below 2**width already, or it would spill into other fields."""
    n, count = codes.shape
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    fields = codes.reshape(n, count // (run * len(shifts)), len(shifts), run) << shifts
    merged: Codes = np.bitwise_or.reduce(fields, axis=2)
    return merged.reshape(n, count // len(shifts))
