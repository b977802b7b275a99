"""What many blocks have shown, as tables: blocks.md for people, blocks.json for programs and for the next run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from halfbyte.formats.gguf.types import GGMLType

from benchmarks.report import Report

from .check import BEYOND, DECODING, KERNEL, NUMPY, Found
from .reasons import REASONS

_ABOUT = (
    "`python -m tests.oracle.blocks`. Weights of twenty kinds, as many blocks of each, are encoded by NumPy (the "
    "definition), by kernels where there are some, and by ggml: *differ* counts the blocks that are not ggml's byte "
    "for byte. What ggml encoded, and as many blocks of random bytes, are decoded by NumPy and by ggml: *differ* "
    "counts those of which a bit of a weight is not the same. The relative RMSE is that of normal weights; it does not "
    "count errors by their importance. Floats are counted in blocks of 32; ggml has no decoder of F32 and Q8_1."
)


@dataclass
class Run:
    """A type, with an importance or without. planted: fault -> blocks that were seen to differ because of it."""

    type: str
    weighted: bool
    seed: int
    found: Found
    planted: Mapping[str, int]

    @property
    def is_good(self) -> bool:
        """No block differs without a reason, and every planted fault was seen."""
        return not self.found.unexplained and all(self.planted.values())

    def line(self) -> str:
        """For the terminal."""
        found = self.found
        parts = [f"{n:,} {what}, {kind}: {reason}" for (what, kind, reason), n in sorted(found.differing.items())]
        parts += [f"planted ({fault}): {n:,} seen" for fault, n in self.planted.items()]
        blocks = ", ".join(f"{n:,} {what}" for what, n in found.blocks.items())
        words = f"{self.type}{' with importance' * self.weighted}: {blocks}"
        return "; ".join([words, f"relative RMSE {found.relative_rmse:.5f}", *parts])

    def as_data(self) -> dict[str, Any]:
        """For JSON; see `of_data`."""
        found = self.found
        return {
            "type": self.type, "weighted": self.weighted, "seed": self.seed, "blocks": dict(found.blocks),
            "squares": found.squares.tolist(), "planted": dict(self.planted),
            "differing": [[*key, n] for key, n in sorted(found.differing.items())],
        }  # fmt: skip

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Run:
        differing = Counter({(what, kind, reason): n for what, kind, reason, n in data["differing"]})
        found = Found(Counter(data["blocks"]), differing, np.array(data["squares"]))
        return cls(data["type"], data["weighted"], data["seed"], found, data["planted"])


def record(runs: Iterable[Run], folder: Path) -> int:
    """Write both files, with the runs of other types that stood there before; see `Report.finish`."""
    every = {(run.type, run.weighted): run for run in [*_before(folder), *runs]}
    ordered = sorted(every.values(), key=lambda run: (GGMLType[run.type], run.weighted))
    report = Report("blocks", "Blocks of every type beside ggml's")
    report.note(_ABOUT)
    report.data["runs"] = [run.as_data() for run in ordered]
    report.table(
        "Types",
        ("Type", "Importance", "NumPy", "differ", "Kernel", "differ", "Decoded", "differ", "Relative RMSE", "Seed"),
        [_row(run) for run in ordered],
    )
    _differences(report, ordered)
    caught = [(run.type, _yes(run.weighted), fault, f"{n:,}") for run in ordered for fault, n in run.planted.items()]
    if caught:
        report.table("Planted faults", ("Type", "Importance", "Fault", "Blocks seen to differ"), caught)
    missed = sum(n == "0" for *_, n in caught)
    unexplained = sum(run.found.unexplained for run in ordered)
    report.goal_at_most("blocks that differ for no known reason", unexplained, 0, "", 0)
    report.goal_at_most("planted faults that were not seen", missed, 0, "", 0)
    return report.finish(folder)


def _before(folder: Path) -> list[Run]:
    path = folder / "blocks.json"
    if not path.exists():
        return []
    return [Run.of_data(data) for data in json.loads(path.read_text(encoding="utf-8"))["results"]["runs"]]


def _yes(weighted: bool) -> str:
    return "yes" if weighted else "no"


def _row(run: Run) -> tuple[str, ...]:
    found = run.found
    counts = [n for what in (NUMPY, KERNEL, DECODING) for n in (found.blocks[what], found.differ(what))]
    error = f"{found.relative_rmse:.5f}"
    return run.type, _yes(run.weighted), *(f"{n:,}" for n in counts), error, str(run.seed)


def _differences(report: Report, runs: Iterable[Run]) -> None:
    rows = [
        (run.type, _yes(run.weighted), what, kind, reason, f"{n:,}")
        for run in runs
        for (what, kind, reason), n in sorted(run.found.differing.items())
    ]
    if not rows:
        return
    report.table("Blocks that differ", ("Type", "Importance", "What", "Weights", "Reason", "Blocks"), rows)
    seen = {reason for *_, reason, _ in rows}
    for name, (_, words) in REASONS.items():
        if name in seen:
            report.note(f"*{name}*: {words}")
    if BEYOND in seen:
        report.note(f"*{BEYOND}*: ggml stores a scale that is infinite; we name the weight, and write nothing.")
