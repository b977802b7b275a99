"""A short run of the fuzzer, and proof that it finds what it looks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import broken_readers
from .fuzz import ENTRY_POINTS, fuzz, fuzz_isolated, load, main, read_all, register, register_path, source_for
from .mutate import bases, mutate
from .mutate_models import models, mutate_model

BROKEN = "tests.hostile.broken_readers"
FIRST_97 = next(i for i in range(1000) if len(mutate(3, i)) % 97 == 0)


def test_bases_load() -> None:
    for base in bases():
        read_all(base.done())


def test_models_load() -> None:
    for model in models():
        load(model.raw().done())


@pytest.mark.parametrize(("entry", "count"), [("open", 2000), ("load", 500)])
def test_no_findings_in_a_short_run(entry: str, count: int) -> None:
    report = fuzz(ENTRY_POINTS[entry], 20240, range(count), source_for(entry))
    assert not report.findings, report.table()
    assert len(report.verdicts) > 12  # the mutations reach many checks, and some files still load
    assert 0 < report.verdicts["loaded"] < count / 2


def test_mutations_depend_on_seed_and_index_only() -> None:
    assert mutate(1, 5) == mutate(1, 5)
    assert mutate_model(1, 5) == mutate_model(1, 5)
    assert len({mutate(1, i) for i in range(100)} | {mutate(2, i) for i in range(100)}) > 190


def test_finds_untyped_exceptions() -> None:
    report = fuzz(broken_readers.untyped, 3, range(50))
    assert report.findings
    assert "IndexError" in report.table()


def test_finds_slow_inputs() -> None:
    report = fuzz(broken_readers.slow, 3, range(FIRST_97 + 1))
    assert [(index, kind) for index, kind, _ in report.findings] == [(FIRST_97, "hang")]


@pytest.mark.parametrize(("name", "kind"), [("crash", "crash"), ("endless", "hang")])
def test_survives_what_kills_the_reader(name: str, kind: str) -> None:
    report = fuzz_isolated(f"{BROKEN}:{name}", 3, FIRST_97 + 2, dead_s=2.0)
    assert (FIRST_97, kind) in [(index, found) for index, found, _ in report.findings]
    assert report.verdicts["loaded"] >= FIRST_97  # the inputs around it were still run


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "20", "--seed", "5", "--entry", "open"]) == 0
    assert "findings 0" in capsys.readouterr().out
    assert main(["--count", "20", "--seed", "5", "--entry", f"{BROKEN}:untyped"]) == 1


def test_a_record_says_what_was_run(tmp_path: Path) -> None:
    broken = f"{BROKEN}:untyped"
    assert main(["--count", "20", "--seed", "5", "--entry", "open", "--entry", broken, "--out", str(tmp_path)]) == 1
    text = (tmp_path / "fuzz.md").read_text(encoding="utf-8")
    assert "20 mutated GGUF files, seed 5" in text
    assert f"Findings: {broken}" in text and "Findings: open" not in text
    results = json.loads((tmp_path / "fuzz.json").read_text(encoding="utf-8"))["results"]
    assert (results["open"]["count"], results["open"]["seed"], results["open"]["findings"]) == (20, 5, [])
    assert sum(results["open"]["outcomes"].values()) == 20
    assert results["open"]["slowest"]["index"] in range(20)
    assert results[broken]["findings"]


def test_registry_takes_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.hostile.fuzz.ENTRY_POINTS", {})
    seen: list[bytes] = []
    register_path("copy", lambda path: seen.append(path.read_bytes()))
    register("raise", broken_readers.untyped)
    from .fuzz import ENTRY_POINTS as fresh

    fresh["copy"](b"123")
    assert seen == [b"123"]
    assert set(fresh) == {"copy", "raise"}
