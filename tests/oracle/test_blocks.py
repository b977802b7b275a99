"""The comparison of very many blocks (`python -m tests.oracle.blocks`) on few: kernels against NumPy, without ggml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS
from halfbyte.runtime.backends.cpu.encode import Encoders

from .blocks import faults
from .blocks.check import KERNEL, NUMPY, Found, Sides, check
from .blocks.inputs import COLS, KINDS, weights
from .blocks.reasons import UNEXPLAINED, Blocks, reasons
from .blocks.record import Run, record

BLOCKS = 400
TYPES = [(GGMLType.Q4_1, False), (GGMLType.Q4_K, True), (GGMLType.NVFP4, False), (GGMLType.TQ1_0, False)]
TYPES += [(GGMLType.Q8_K, False)]
by_type = pytest.mark.parametrize(("ggml_type", "weighted"), TYPES, ids=lambda v: getattr(v, "name", None))


def in_numpy(ggml_type: GGMLType, x: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    return CODECS[ggml_type].encode(x, given)


@pytest.fixture(scope="module")
def sides() -> Iterator[Sides]:
    """NumPy is in the place of ggml."""
    with Encoders(1) as kernels:
        yield Sides({KERNEL: lambda t, x, given: kernels.encode(x, t, given)}, theirs=in_numpy)


def run(ggml_type: GGMLType, sides: Sides, *, weighted: bool) -> Found:
    return check(ggml_type, sides, blocks=BLOCKS, seed=3, weighted=weighted)


@by_type
def test_kernels_make_the_same_blocks(sides: Sides, ggml_type: GGMLType, weighted: bool) -> None:
    found = run(ggml_type, sides, weighted=weighted)
    assert not found.differing
    assert found.blocks[KERNEL] >= BLOCKS
    assert 0 < found.relative_rmse < 1


@by_type
def test_planted_faults_are_seen(sides: Sides, ggml_type: GGMLType, weighted: bool) -> None:
    assert run(ggml_type, faults.one_bit_changed(sides, KERNEL), weighted=weighted).differing.total() == 1
    with faults.rounding_changed(ggml_type, faults.rule_of(ggml_type, weighted=weighted)):
        assert run(ggml_type, sides, weighted=weighted).differ(KERNEL)
    assert not run(ggml_type, sides, weighted=weighted).differing, "the fault is gone"


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_numbers_that_fit(kind: str) -> None:
    for has_half_scale in (False, True):
        x = weights(kind, np.random.default_rng(1), 3, has_half_scale=has_half_scale)
        assert x.shape == (3, COLS) and x.dtype == np.float32 and np.isfinite(x).all()


def test_a_difference_has_a_reason_or_none() -> None:
    x = np.full((3, 32), 1e-39, np.float32)
    x[1] = 1.0
    x[2] = 0.0
    ours = in_numpy(GGMLType.Q4_0, x, None)
    theirs = ours.copy()
    theirs[:, 3] ^= 0x40
    found = reasons(Blocks(GGMLType.Q4_0, x, ours, theirs))
    assert found == ["undefined conversion", UNEXPLAINED, UNEXPLAINED]


def test_a_record_keeps_the_runs_of_other_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = Found()
    found.blocks[NUMPY] = 7
    assert record([Run("Q4_K", True, 1, found, {"a fault": 3})], tmp_path) == 0
    found.differing[NUMPY, "normal", UNEXPLAINED] = 2
    assert record([Run("Q4_0", False, 1, found, {})], tmp_path) == 1
    text = (tmp_path / "blocks.md").read_text(encoding="utf-8")
    assert text == capsys.readouterr().out[-len(text) :]
    assert "| Q4_K |" in text and "| Q4_0 |" in text and "a fault" in text and "**no**" in text
