"""Weights that bitsandbytes and we quantize, for fixtures/bitsandbytes.json and the tests that use it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from halfbyte.formats.gguf.types import BLOCK_SIZES

CASES = [
    (codes, size, n)
    for codes in ("nf4", "fp4") for size in BLOCK_SIZES for n in (1, size - 1, 70 * 64, 257 * size + 7)
]  # fmt: skip


def weights(n: int) -> npt.NDArray[np.float32]:
    """Normal ones with outliers, zeros, and values between levels."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal(n).astype(np.float32) * np.float32(0.03)
    x[rng.integers(0, n, n // 50)] *= np.float32(20)
    x[n // 3 : n // 3 + 70] = 0
    x[n // 2 : n // 2 + 300] = np.round(x[n // 2 : n // 2 + 300], 3)
    return x


def int8_rows() -> npt.NDArray[np.float32]:
    x = weights(37 * 96).reshape(37, 96)
    x[5] = 0
    return x


def crc(*arrays: npt.NDArray[np.generic]) -> Iterator[str]:
    for array in arrays:
        yield f"{zlib.crc32(np.ascontiguousarray(array).tobytes()):08x}"
