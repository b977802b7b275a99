"""The numbers of the README are those of the stored results."""

from __future__ import annotations

import json

from benchmarks import readme


def test_the_readme_says_what_was_measured() -> None:
    folder = readme.ROOT / "benchmarks" / "results"
    results = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in readme.SCRIPTS}
    text = (readme.ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.updated(text, results) == text, "run: python -m benchmarks.readme"
