"""Weights that encoders find hard, made of integers alone: the same on every machine and with every version of NumPy.

tests/fixtures/encoders.json holds what ggml makes of them, a checksum for each row (see fixtures/make/encoders.py).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

COLS = 512
Floats = npt.NDArray[np.float32]
NEED_IMPORTANCE = ("IQ1_S", "IQ2_XXS", "IQ2_XS")  # types that ggml does not encode without


def random_bits(seed: int, count: int) -> npt.NDArray[np.uint64]:
    """SplitMix64."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _uniform(seed: int, rows: int) -> Floats:
    """[rows, COLS], of (-1, 1) in steps of 2**-23."""
    bits = random_bits(seed, rows * COLS) >> np.uint64(40)
    return (bits.astype(np.float32) * np.float32(2.0**-23) - np.float32(1)).reshape(rows, COLS)


def weights() -> Floats:
    """float32 [rows, COLS]: bells of all sizes, long tails, one sign, few values, edges."""
    bell = sum((_uniform(seed, 24) for seed in range(4)), np.zeros((24, COLS), np.float32))
    sizes = np.float32(2) ** np.arange(-22, 2, dtype=np.float32)[:, None]
    tails = _uniform(5, 4) ** 5
    one_sign = np.abs(_uniform(6, 4)) * np.float32([[1], [-1], [1], [-1]]) + np.float32([[0], [0], [0.5], [-3]])
    few = np.round(_uniform(7, 4) * np.float32([[1], [2], [3.5], [8]])) * np.float32([[1], [0.75], [1], [0.1]])
    sparse = np.where(_uniform(8, 4) > np.float32([[0.5], [0.9], [0.98], [0.995]]), _uniform(9, 4), np.float32(0))
    return np.concatenate([bell * sizes, tails, one_sign, few, sparse, _edges()]).astype(np.float32)


def _edges() -> Floats:
    x = np.zeros((19, COLS), np.float32)
    x[1] = -0.0
    x[2] = 1.5
    x[3] = -1.5
    x[4, 3::64], x[4, 5::64] = 2.0, -2.0  # the largest magnitude occurs with both signs
    x[5] = np.tile([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127, -127], COLS // 8)  # halves: which way do they round?
    x[6] = np.arange(COLS) % 16 - 8
    x[7] = np.arange(COLS) % 32
    x[8] = np.linspace(-1e-42, 2e-42, COLS, dtype=np.float32)  # 1 / scale overflows
    x[9] = np.linspace(-1, 1, COLS, dtype=np.float32) * np.float32(1e-15)
    x[10] = np.linspace(-1, 1, COLS, dtype=np.float32) * np.float32(1e-7)  # scales below the smallest float16
    x[11] = np.where(np.arange(COLS) % 32 < 16, _uniform(10, 1)[0], np.float32(0))  # every other group of zeros
    x[12] = np.where(np.arange(COLS) < 256, _uniform(11, 1)[0], np.float32(0))  # a block of zeros
    x[13] = _uniform(12, 1)[0] * np.where(np.arange(COLS) % 64 < 32, np.float32(1), np.float32(1e-6))
    x[14] = _uniform(13, 1)[0] * np.float32(6e4)
    x[15, ::7] = 1e-30
    x[16] = _uniform(15, 1)[0] * np.linspace(1200, 3200, COLS // 16, dtype=np.float32).repeat(16)  # NVFP4: around 256
    zeros = np.where(_uniform(16, 1)[0] < 0, np.float32(-0.0), np.float32(0))  # which of them is the smallest?
    some = np.where(np.arange(COLS) % 3, np.abs(_uniform(17, 1)[0]), zeros)
    x[17] = np.where(np.arange(COLS) % 128 < 96, zeros, some)
    x[18] = np.where(np.arange(COLS) % 2, np.float32(-0.0), np.float32(-1.5))  # sums of products that are -0
    return x


def importance() -> Floats:
    """float32 [COLS]: mean squares of many sizes, and some that are zero."""
    found = (np.abs(_uniform(14, 1)[0]) + np.float32(0.01)) ** 4 * np.float32(30)
    found[::37] = 0
    return found


def importance_of_few() -> Floats:
    """float32 [COLS]: as `importance` for one column of 32, and zero for all others. Sums over a group then cancel, and
    scales that are made of what rounding has left of them may be below zero.
    """
    return np.where(np.arange(COLS) % 32 == 27, importance(), np.float32(0))


# What encoders are given, by the names in encoders.json.
GIVEN: dict[str, Callable[[], Floats | None]] = {
    "plain": lambda: None,
    "weighted": importance,
    "few": importance_of_few,
}


def kinds_of(name: str) -> list[str]:
    """Those of `GIVEN` that a type is encoded with."""
    has_few = name in ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]
    return ["plain"] * (name not in NEED_IMPORTANCE) + ["weighted"] + ["few"] * has_few


def checksums(encoded: npt.NDArray[np.uint8]) -> list[str]:
    """One for each row."""
    return [f"{zlib.crc32(row.tobytes()):08x}" for row in encoded]
