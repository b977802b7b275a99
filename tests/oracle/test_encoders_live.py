"""Encoders of lattice types against ggml itself, on harder weights than the fixture's. Needs llama-cpp-python."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS

from ..encoder_inputs import NEED_IMPORTANCE
from ..fixtures.make.encoders import Ggml

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; the fixture is checked without it")

ROWS, COLS = 8, 1024
Floats = npt.NDArray[np.float32]
TYPES = [t for t in sorted(CODECS) if t.name.startswith(("IQ1", "IQ2", "IQ3"))]


@pytest.fixture(scope="module")
def ggml() -> Ggml:
    return Ggml()


def bell(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return rng.standard_normal((ROWS, COLS))


def per(size: int, rng: np.random.Generator, low: float, high: float) -> npt.NDArray[np.float64]:
    """Powers of ten, one for so many neighbouring weights."""
    return 10.0 ** rng.uniform(low, high, (ROWS, COLS // size)).repeat(size, axis=1)


def few(size: int, values: list[float], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return rng.choice(values, (ROWS, COLS // size)).repeat(size, axis=1)


HARD = {
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


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("ggml_type", TYPES, ids=lambda t: t.name)
def test_the_same_bytes(ggml: Ggml, ggml_type: GGMLType, name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    x = HARD[name](rng).astype(np.float32)
    for given in (columns(name, rng), None):
        if given is not None or ggml_type.name not in NEED_IMPORTANCE:
            np.testing.assert_array_equal(CODECS[ggml_type].encode(x, given), ggml.encode(ggml_type, x, given))
