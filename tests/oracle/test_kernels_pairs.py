"""Prompts with half-precision weights as pairs of bfloat16: the layout of the activations, and the products."""

from __future__ import annotations

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import decode
from halfbyte.runtime.backends.cpu import args as records
from halfbyte.runtime.backends.cpu.features import target
from numpy.typing import NDArray

from tests.builders_quants import random_blocks
from tests.kernel_harness import call
from tests.oracle.test_kernels_tiles import brain
from tests.tolerances import BRAIN_PAIRS, BRAIN_PAIRS_NORM

pytestmark = pytest.mark.skipif(not target().isa.pairs, reason="products of bfloat16 are made otherwise")


def in_pairs(x: NDArray[np.float32], nth: int = 2) -> NDArray[np.uint8]:
    """x [tokens, cols] as the kernel lays it out, in memory full of junk."""
    tokens, cols = x.shape
    packed = np.full(records.tiled(tokens) * cols // 32 * records.PACKED_BYTES, 0xA5, np.uint8)
    call("pack_pairs", nth=nth, tokens=tokens, x=x, packed=packed, cols=cols, repeat=1)
    return packed


@pytest.mark.parametrize("tokens", [1, 6, 21])
def test_activations_in_pairs(tokens: int) -> None:
    rng, tile = np.random.default_rng(tokens), records.tiled(1)
    x = (rng.standard_normal((tokens, 96)) * np.logspace(-3, 3, tokens)[:, None]).astype(np.float32)
    words = in_pairs(x, nth=3).view(np.uint16).reshape(-1, 3, 16, tile, 2).transpose(0, 3, 1, 2, 4).reshape(-1, 96)
    rows = (words.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(rows[:tokens], brain(x))
    assert np.array_equal(rows[tokens:], np.repeat(brain(x[-1:]), len(rows) - tokens, axis=0))


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_products(name: str) -> None:
    kind, rng = GGMLType[name], np.random.default_rng(len(name))
    for cols in (32, 96, 800):
        for n, tokens, nth in ((1, 1, 1), (37, 17, 3), (300, 40, 2)):
            weight = random_blocks(kind, (n, cols), rng)
            x = rng.standard_normal((tokens, cols)).astype(np.float32)
            bias = rng.standard_normal(n).astype(np.float32) if n > 1 else None
            residual = rng.standard_normal((tokens, n)).astype(np.float32) if tokens != 17 else None
            out = np.full((tokens, n), np.nan, np.float32)
            call(
                f"linear_pairs.{name}", nth=nth, tokens=tokens, scratch=records.gemm_scratch_bytes(cols), w=weight,
                row_bytes=kind.row_bytes(cols), n=n, out=out, bias=0 if bias is None else bias,
                residual=0 if residual is None else residual, cols=cols, repeat=1, limit=0, packed=in_pairs(x),
            )  # fmt: skip
            decoded = decode(weight, kind).astype(np.float64)
            product, worst = x @ decoded.T, np.abs(x) @ np.abs(decoded).T + 1e-6
            got = out - (0 if bias is None else bias) - (0 if residual is None else residual)
            rounding = 1e-6 * (np.abs(out) + 3)  # of the additions after the product
            assert (np.abs(got - product) <= BRAIN_PAIRS[name] * worst + rounding).all(), (cols, n)
            if n == 300:
                assert np.linalg.norm(got - product) <= BRAIN_PAIRS_NORM[name] * np.linalg.norm(product)
