"""The fixtures are what transformers computes today. Needs the [oracle] extra, which .ci/run installs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from ..builders import CASES, ENCODERS, Case
from ..fixtures.make import families, rope

pytest.importorskip(
    "torch", reason="the [oracle] extra is not installed; the committed fixtures are checked without it"
)
pytest.importorskip("transformers", reason="the [oracle] extra is not installed")


@pytest.fixture(autouse=True)
def foreign_warnings() -> Iterator[None]:
    """Warnings of the oracle's own libraries are not ours to fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("case", [*CASES.values(), *ENCODERS.values()], ids=lambda case: case.name)
def test_logits(case: Case) -> None:
    fixture = families.load(case.name)
    live = families.oracle_logits(case)
    assert np.abs(live - fixture["logits"]).max() < 1e-5 * np.abs(live).max()


@pytest.mark.parametrize("name", rope.ROPES)
def test_rope_tables(name: str) -> None:
    stored = json.loads(rope.PATH.read_text(encoding="utf-8"))[name]
    inv_freq, factor = rope.their_table(name)
    assert np.allclose(inv_freq, stored["inv_freq"], rtol=1e-6, atol=0)
    assert factor == pytest.approx(stored["attention_factor"], rel=1e-9)
