"""Rope tables: by hand where the answer fits in the head, and those of transformers from a fixture for all methods."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from halfbyte.runtime.models.rope import frequencies, yarn_frequencies, yarn_magnitude

from ..fixtures.make.rope import PATH, ROPES, our_table

TABLES = json.loads(PATH.read_text(encoding="utf-8"))


def test_plain_frequencies() -> None:
    assert frequencies(6, 1000.0).tolist() == pytest.approx([1, 0.1, 0.01])


@pytest.mark.parametrize("name", ROPES)
def test_tables_are_those_of_transformers(name: str) -> None:
    inv_freq, mscale = our_table(name)
    assert np.abs(inv_freq / np.array(TABLES[name]["inv_freq"]) - 1).max() < 1e-6  # two float32 roundings
    assert mscale == pytest.approx(TABLES[name]["attention_factor"], rel=1e-6)


def test_the_fixture_holds_nothing_else_and_its_tables_differ() -> None:
    assert set(TABLES) == set(ROPES)
    tables = [(*table["inv_freq"], table["attention_factor"]) for table in TABLES.values()]
    assert len(set(tables)) == len(tables)


def test_yarn_keeps_fast_pairs_and_slows_down_slow_ones() -> None:
    plain = frequencies(64, 10_000.0)
    table = yarn_frequencies(plain, factor=8.0, base=10_000.0, original_context=4096)
    turns = plain * 4096 / (2 * math.pi)
    assert np.allclose(table[turns > 64], plain[turns > 64])
    assert np.allclose(table[turns < 0.5], plain[turns < 0.5] / 8)
    assert ((plain / 8 <= table * (1 + 1e-12)) & (table <= plain * (1 + 1e-12))).all()


def test_yarn_without_extrapolation_is_linear() -> None:
    plain = frequencies(16, 500.0)
    table = yarn_frequencies(plain, factor=3.0, base=500.0, original_context=64, extrapolation=0.0)
    assert np.allclose(table, plain / 3)


def test_yarn_magnitude() -> None:
    assert yarn_magnitude(math.e**2) == pytest.approx(1.2)
    assert yarn_magnitude(1.0) == yarn_magnitude(0.5) == 1.0
