"""Weights of many kinds to fill blocks with, and importances of their columns. A kind is a function of a generator.

Everything is drawn in rows of COLS, whole blocks of every type, with sizes of their own for each block of 256.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

COLS = 512
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Kind = Callable[[np.random.Generator, int], Doubles]


def _per(size: int, rng: np.random.Generator, rows: int, low: float, high: float) -> Doubles:
    """Powers of ten from 10**low to 10**high, one for so many neighbouring weights."""
    return np.repeat(10.0 ** rng.uniform(low, high, (rows, COLS // size)), size, axis=1)


def _sizes(rng: np.random.Generator, rows: int) -> Doubles:
    """Of blocks: from where their scales are no normal float16 to large weights."""
    return _per(256, rng, rows, -9, 3)


def _bell(rng: np.random.Generator, rows: int) -> Doubles:
    return rng.standard_normal((rows, COLS))


def _signs(rng: np.random.Generator, rows: int) -> Doubles:
    return rng.choice([-1.0, 1.0], (rows, COLS))


def _few(size: int, values: list[float], rng: np.random.Generator, rows: int) -> Doubles:
    """One of some values for so many neighbouring weights."""
    return np.repeat(rng.choice(values, (rows, COLS // size)), size, axis=1)


def _zeros(rng: np.random.Generator, rows: int) -> Doubles:
    """Of either sign: a row of one, or of both."""
    return np.where(rng.random((rows, COLS)) < rng.choice([0, 0.5, 1], (rows, 1)), 0.0, -0.0)


def _groups_of_zeros(rng: np.random.Generator, rows: int) -> Doubles:
    return _bell(rng, rows) * _sizes(rng, rows) * _few(16, [0.0, 1.0], rng, rows)


def _equal(rng: np.random.Generator, rows: int) -> Doubles:
    return _few(256, [-1.0, 1.0], rng, rows) * np.where(
        rng.random((rows, 1)) < 0.5, _sizes(rng, rows), _few(256, [0.5, 1, 3, 127, 1024], rng, rows)
    )


def _outlier(rng: np.random.Generator, rows: int) -> Doubles:
    x = _bell(rng, rows)
    at = rng.integers(0, 32, (rows, COLS // 32)) + 32 * np.arange(COLS // 32)
    np.put_along_axis(x, at, rng.choice([-1, 1], at.shape) * 10.0 ** rng.uniform(1, 6, at.shape), axis=1)
    return x * _per(256, rng, rows, -9, -3)


def _alternating(rng: np.random.Generator, rows: int) -> Doubles:
    other = _few(256, [-1.0, -0.5, -1e-3, 0.0, 0.25], rng, rows)
    return np.where(np.arange(COLS) % 2, other, 1.0) * _few(256, [-1.0, 1.0], rng, rows) * _sizes(rng, rows)


def _halves(rng: np.random.Generator, rows: int) -> Doubles:
    """Multiples of a half, with a largest one that makes the scale a power of two: which way are they rounded?"""
    levels = _few(256, [2, 3, 7.5, 8, 16, 31, 127], rng, rows)
    x = np.clip(np.round(rng.uniform(-2, 2, (rows, COLS)) * levels) / 2, -levels, levels)
    x[:, ::16] = levels[:, ::16] * rng.choice([-1, 1], (rows, COLS // 16))
    return x * 2.0 ** np.repeat(rng.integers(-12, 6, (rows, 2)), 256, axis=1)


def _bits(rng: np.random.Generator, rows: int) -> Doubles:
    """Any bits of a float32, but of a finite number."""
    bits = rng.integers(0, 1 << 32, (rows, COLS), np.uint64).astype(np.uint32)
    x = np.where((bits >> 23 & 255) == 255, bits ^ np.uint32(1 << 30), bits).astype(np.uint32).view(np.float32)
    return x.astype(np.float64)


KINDS: dict[str, Kind] = {
    "normal": _bell,
    "normal, of all sizes": lambda rng, rows: _bell(rng, rows) * _sizes(rng, rows),
    "Laplace": lambda rng, rows: rng.laplace(size=(rows, COLS)) * _sizes(rng, rows),
    "uniform": lambda rng, rows: rng.uniform(-1, 1, (rows, COLS)) * _sizes(rng, rows),
    "long tails": lambda rng, rows: np.clip(rng.standard_t(1.5, (rows, COLS)), -1e3, 1e3) * _per(256, rng, rows, -8, 1),
    "one sign": lambda rng, rows: np.abs(_bell(rng, rows)) * _few(256, [-1, 1], rng, rows) * _sizes(rng, rows),
    "groups of all sizes": lambda rng, rows: _bell(rng, rows) * _per(16, rng, rows, -8, 3),
    "sparse": lambda rng, rows: _bell(rng, rows) * (rng.random((rows, COLS)) < 0.1) * _sizes(rng, rows),
    "few values": lambda rng, rows: _few(1, [-1.5, -1, 0, 0.25, 1, 1.5], rng, rows) * _sizes(rng, rows),
    "halves": _halves,
    "zeros": _zeros,
    "groups of zeros": _groups_of_zeros,
    "all equal": _equal,
    "one outlier": _outlier,
    "alternating": _alternating,
    "denormal": lambda rng, rows: _bell(rng, rows) * _per(256, rng, rows, -45, -37),
    "tiny": lambda rng, rows: _bell(rng, rows) * _per(256, rng, rows, -37, -9),
    "huge range": lambda rng, rows: _signs(rng, rows) * _per(1, rng, rows, -44, 38),
    "extremes": lambda rng, rows: _signs(rng, rows) * _few(1, [1e38, 9e37, 5e37, 0.0, 1e-45], rng, rows),
    "any bits": _bits,
}

IMPORTANCES = 6  # kinds; the first is like what is measured
HELD = 6e4  # the largest weight that every float16 scale can serve
RANGE = 3.4e38


def weights(kind: str, rng: np.random.Generator, rows: int, *, has_half_scale: bool) -> Floats:
    """float32 [rows, COLS] of a kind, cut off where a float16 scale could not hold them."""
    x = KINDS[kind](rng, rows)
    if has_half_scale and kind == "extremes":
        x *= HELD / 1e38
    limit = HELD if has_half_scale else RANGE
    return np.clip(x, -limit, limit).astype(np.float32)


def importance(rng: np.random.Generator, number: int) -> Floats:
    """float32 [COLS]: the `number`-th of them is like what is measured, of many sizes, with zeros, equal, or of few
    columns that count for much more than the others, or alone: then sums cancel, and scales may come out below zero.
    """
    sizes, place = 10.0 ** rng.uniform(-8, 4, COLS), np.arange(COLS) % 32
    made = [
        lambda: rng.chisquare(1, COLS) * 10.0 ** rng.uniform(-4, 2),
        lambda: sizes,
        lambda: np.where(rng.random(COLS) < 0.3, 0, sizes) * _few(64, [0, 1, 1, 1], rng, 1)[0],
        lambda: np.ones(COLS),
        lambda: np.where(place % 16 == rng.integers(16), 10.0 ** rng.uniform(3, 7, COLS), 1),
        lambda: np.where((place == rng.integers(32)) | (place == rng.integers(32)), sizes, 0),
    ]
    return np.asarray(made[number % IMPORTANCES](), np.float32)
