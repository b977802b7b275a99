"""Prompts in tile registers (AMX): the layout of the activations, and products of every type against float64."""

from __future__ import annotations

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import decode
from halfbyte.runtime.backends.cpu.args import TILE_SCRATCH_BYTES
from halfbyte.runtime.backends.cpu.features import target
from numpy.typing import NDArray

from tests.builders_quants import random_blocks
from tests.kernel_harness import call
from tests.oracle.test_kernels_linear import QUANTIZED, columns
from tests.tolerances import BRAIN, BRAIN_NORM, BRAIN_PAIR

pytestmark = pytest.mark.skipif(not target().isa.tiles, reason="no tile registers, or the system does not give them")

HALVES = ["F16", "BF16"]


def brain(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """x rounded to bfloat16, nearest even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def in_tiles(x: NDArray[np.float32], variant: str, nth: int = 2) -> dict[str, np.ndarray]:
    """x [tokens, cols] as the kernel lays it out, in memory full of junk."""
    tokens, cols = x.shape
    shape = (-(-tokens // 16), cols // 32, 16, 16, 2)
    made = {part: np.full(shape, 0x7FC1, np.uint16) for part in ("high", "low")}
    call(f"brain.{variant}", nth=nth, tokens=tokens, x=x, **made, cols=cols, repeat=1)
    return made


def as_rows(tiles: np.ndarray) -> NDArray[np.float32]:
    """[tokens, cols] of tiles [tokens / 16, cols / 32, pair, token, 2]."""
    i, k = tiles.shape[:2]
    words = tiles.transpose(0, 3, 1, 2, 4).reshape(16 * i, 32 * k)
    return (words.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("tokens", [1, 16, 21])
def test_activations_in_tiles(tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    x = (rng.standard_normal((tokens, 96)) * np.logspace(-3, 3, tokens)[:, None]).astype(np.float32)
    fast, exact = in_tiles(x, "fast"), in_tiles(x, "exact", nth=3)
    assert np.array_equal(as_rows(fast["high"])[:tokens], brain(x))
    assert (fast["low"] == 0x7FC1).all()
    assert np.array_equal(exact["high"], fast["high"])
    assert np.array_equal(as_rows(exact["low"])[:tokens], brain(x - brain(x)))
    assert not as_rows(exact["high"])[tokens:].any() and not as_rows(exact["low"])[tokens:].any()


@pytest.mark.parametrize("name", [*QUANTIZED, *HALVES])
def test_products(name: str) -> None:
    kind, rng = GGMLType[name], np.random.default_rng(len(name))
    for cols in [*columns(kind), 1280] if name in QUANTIZED else [32, 96, 800]:
        for n, tokens, nth in ((1, 1, 1), (37, 17, 3), (300, 40, 2)):
            weight = random_blocks(kind, (n, cols), rng)
            x = rng.standard_normal((tokens, cols)).astype(np.float32)
            bias = rng.standard_normal(n).astype(np.float32) if n > 1 else None
            residual = rng.standard_normal((tokens, n)).astype(np.float32) if tokens != 17 else None
            out = np.full((tokens, n), np.nan, np.float32)
            call(
                f"linear_tiles.{name}", nth=nth, tokens=tokens, scratch=TILE_SCRATCH_BYTES + 64, w=weight,
                row_bytes=kind.row_bytes(cols), n=n, out=out, bias=0 if bias is None else bias,
                residual=0 if residual is None else residual, cols=cols, repeat=1, limit=0,
                **in_tiles(x, "exact" if name in HALVES else "fast"),
            )  # fmt: skip
            decoded = decode(weight, kind).astype(np.float64)
            product, worst = x @ decoded.T, np.abs(x) @ np.abs(decoded).T + 1e-6
            got = out - (0 if bias is None else bias) - (0 if residual is None else residual)
            rounding = 1e-6 * (np.abs(out) + 3)  # of the additions after the product
            bound = (BRAIN if name in QUANTIZED else BRAIN_PAIR) * worst + rounding
            assert (np.abs(got - product) <= bound).all(), (name, cols, n)
            if n == 300 and name in QUANTIZED:
                assert np.linalg.norm(got - product) <= BRAIN_NORM * np.linalg.norm(product)


def test_the_limit_leaves_the_work_to_the_other_kernel() -> None:
    x, weight = np.ones((3, 32), np.float32), np.ones((2, 32), np.float16)
    out = np.full((3, 2), -1, np.float32)
    arguments = {"w": weight, "row_bytes": 64, "n": 2, "cols": 32, "repeat": 1, "out": out, **in_tiles(x, "exact")}
    for limit, expected in ((3, -1), (2, 32)):
        call("linear_tiles.F16", tokens=3, scratch=TILE_SCRATCH_BYTES + 64, limit=limit, **arguments)
        assert (out == expected).all()


def test_a_cancelled_product_stops() -> None:
    x, weight = np.ones((3, 32), np.float32), np.ones((2, 32), np.float16)
    out = np.full((3, 2), -1, np.float32)
    arguments = {"w": weight, "row_bytes": 64, "n": 2, "cols": 32, "repeat": 1, "out": out, **in_tiles(x, "exact")}
    call("linear_tiles.F16", tokens=3, scratch=TILE_SCRATCH_BYTES + 64, limit=0, cancelled=True, **arguments)
    assert (out == -1).all()


def test_a_token_does_not_depend_on_the_others() -> None:
    rng = np.random.default_rng(3)
    kind = GGMLType.Q4_K
    weight, x = random_blocks(kind, (40, 512), rng), rng.standard_normal((50, 512)).astype(np.float32)

    def product(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.full((len(rows), 40), np.nan, np.float32)
        call(
            "linear_tiles.Q4_K", tokens=len(rows), scratch=TILE_SCRATCH_BYTES + 64, w=weight,
            row_bytes=kind.row_bytes(512), n=40, out=out, cols=512, repeat=1, limit=0, **in_tiles(rows, "fast"),
        )  # fmt: skip
        return out

    together = product(x)
    assert np.array_equal(together[7:8], product(x[7:8]))
    assert np.array_equal(together[30:], product(x[30:]))
