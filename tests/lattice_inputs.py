"""Weights and importances that encoders of lattice types find harder than those of encoder_inputs.py."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

ROWS, COLS = 8, 1024
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def bell(rng: np.random.Generator) -> Doubles:
    return rng.standard_normal((ROWS, COLS))


def per(size: int, rng: np.random.Generator, low: float, high: float) -> Doubles:
    """Powers of ten, one for so many neighbouring weights."""
    return 10.0 ** rng.uniform(low, high, (ROWS, COLS // size)).repeat(size, axis=1)


def few(size: int, values: list[float], rng: np.random.Generator) -> Doubles:
    return rng.choice(values, (ROWS, COLS // size)).repeat(size, axis=1)


HARD: dict[str, Callable[[np.random.Generator], Doubles]] = {
    "sizes": lambda rng: bell(rng) * per(COLS, rng, -9, 4),
    "tiny": lambda rng: bell(rng) * per(256, rng, -44, -9),
    "groups": lambda rng: bell(rng) * per(16, rng, -8, 1),
    "tails": lambda rng: np.clip(rng.standard_t(1.5, (ROWS, COLS)), -1e3, 1e3),
    "one sign": lambda rng: np.abs(bell(rng)) * rng.choice([-1, 1], (ROWS, 1)) + rng.choice([0, 0.5], (ROWS, 1)),
    "sparse": lambda rng: bell(rng) * (rng.random((ROWS, COLS)) < 0.1) + 1e-30,
    "equal": lambda rng: few(8, [-1.5, 1.5, 0.25, 0.0, -0.0], rng) + 1e-3 * few(32, [1, -1], rng),
    "levels": lambda rng: few(1, [1, 3, 5, 7, 9, 11, 13, 15], rng) * few(1, [1, -1], rng) * 0.013,
    "alone": lambda rng: bell(rng) * np.where(np.arange(COLS) % 16 == 3, 1e-3, 1),
}


def columns(name: str, rng: np.random.Generator) -> Floats:
    """An importance: of many sizes, or zero for some and for whole groups."""
    if name == "alone":  # so much that a sign which is wrong, to make their number even, makes a scale negative
        return np.where(np.arange(COLS) % 16 == 3, 10.0 ** rng.uniform(3, 7, COLS), 1).astype(np.float32)
    found = 10.0 ** rng.uniform(-8, 4, COLS)
    if name in ("groups", "tails", "equal"):
        found[rng.random(COLS) < 0.3] = 0
        found[64:128] = found[256:512] = 0
    return found.astype(np.float32)


def hard(name: str) -> tuple[Floats, Floats]:
    """Weights float32 [ROWS, COLS] and an importance float32 [COLS]."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    weights = HARD[name](rng).astype(np.float32)
    return weights, columns(name, rng)
