"""The numbers of the README are those of the stored results, and those of the lesson are what encoders reach."""

from __future__ import annotations

import re

import numpy as np
import pytest
from halfbyte.formats.quants import CODECS
from halfbyte.formats.quants.accuracy import errors

from benchmarks import readme


def test_the_readme_says_what_was_measured() -> None:
    results = readme.stored()
    text = (readme.ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.updated(text, results) == text, "run: python -m benchmarks.readme"


def test_the_lesson_says_what_types_cost() -> None:
    """Of an eighth of its weights: a few percent around what it says."""
    x = np.random.default_rng(0).standard_normal((16, 1024)).astype(np.float32)
    page = (readme.ROOT / "docs/quantization.md").read_text(encoding="utf-8")
    found = re.findall(r"\| (\w+) \| ([\d.]+) \| ([\d.]+) \|", page)
    rows = {name: (float(bits), float(error)) for name, bits, error in found}
    left_out = ("F32", "Q8_1", "Q8_K")
    codecs = {kind.name: codec for kind, codec in CODECS.items() if kind.on_disk and kind.name not in left_out}
    assert rows.keys() == codecs.keys()
    for name, codec in codecs.items():
        equal = np.ones(1024, np.float32) if name.startswith(("IQ1", "IQ2")) else None
        cost = errors(x, codec.decode(codec.encode(x, equal))).relative_rmse
        assert rows[name] == (8 * codec.block_bytes / codec.block_size, pytest.approx(cost, rel=0.04)), name
