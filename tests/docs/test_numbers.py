"""The numbers of the README are those of the stored results."""

from __future__ import annotations

from benchmarks import readme


def test_the_readme_says_what_was_measured() -> None:
    results = readme.stored()
    text = (readme.ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.updated(text, results) == text, "run: python -m benchmarks.readme"
