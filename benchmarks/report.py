"""A report: tables and goals, as Markdown for people and JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import machine


@dataclass(frozen=True)
class Goal:
    """A number that was promised, and what was measured."""

    what: str
    measured: str
    wanted: str
    met: bool


@dataclass
class Report:
    """Collects results; `write` stores them under `name`, `finish` prints them, too."""

    name: str
    title: str
    data: dict[str, Any] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)
    _load_before: float | None = field(default_factory=machine.load_average)
    _busy_before: bool = field(default_factory=machine.is_busy)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._parts.append(f"## {title}\n\n{markdown_table(header, rows)}")

    def note(self, text: str) -> None:
        self._parts.append(text)

    def goal_at_most(self, what: str, value: float, limit: float, unit: str, digits: int = 2) -> None:
        self._goal(what, value, "at most", limit, unit, digits, value <= limit)

    def goal_at_least(self, what: str, value: float, limit: float, unit: str, digits: int = 2) -> None:
        self._goal(what, value, "at least", limit, unit, digits, value >= limit)

    def goal_true(self, what: str, measured: str, met: bool) -> None:
        self.goals.append(Goal(what, measured, "yes", met))

    def finish(self, folder: Path) -> int:
        """Print the report and write it. The exit code: 0 when every goal was met, else 1."""
        print(self.write(folder))
        return 0 if all(goal.met for goal in self.goals) else 1

    def write(self, folder: Path) -> str:
        """Store what there is so far, as NAME.md and NAME.json; the text of the former."""
        about = {
            **machine.facts(),
            "date": time.strftime("%Y-%m-%d"),
            "load_average": [self._load_before, machine.load_average()],
            "busy_at_start": self._busy_before,
        }
        text = self._markdown(about)
        folder.mkdir(parents=True, exist_ok=True)
        goals = [vars(goal) for goal in self.goals]
        content = {"benchmark": self.name, "machine": about, "goals": goals, "results": self.data}
        (folder / f"{self.name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (folder / f"{self.name}.md").write_text(text + "\n", encoding="utf-8")
        return text

    def _goal(self, what: str, value: float, word: str, limit: float, unit: str, digits: int, met: bool) -> None:
        measured, wanted = (f"{x:.{digits}f} {unit}".strip() for x in (value, limit))
        self.goals.append(Goal(what, measured, f"{word} {wanted}", met))

    def _markdown(self, about: dict[str, Any]) -> str:
        parts = [f"# {self.title}", _about_lines(about), *self._parts]
        if self.goals:
            rows = [(g.what, g.measured, g.wanted, "yes" if g.met else "**no**") for g in self.goals]
            parts.append("## Goals\n\n" + markdown_table(("Goal", "Measured", "Wanted", "Met"), rows))
        return "\n\n".join(parts)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Padded, so that it can be read as plain text too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def _about_lines(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items() if number)
    before, after = about["load_average"]
    busy = " (**busy: timings mean little**)" if about["busy_at_start"] else ""
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, kernels for {about['kernel_level']}; "
        f"{about['system']}; Python {about['python']}, {versions}; commit {about['commit']}, {about['date']}; "
        f"load average {before} before{busy}, {after} after."
    )
