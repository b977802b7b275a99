"""Several runs of benchmarks.speed side by side: results/speed.json, results/run2/speed.json, ..."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import targets
from .report import markdown_table


def folder(out: Path, run: int) -> Path:
    """Where results of a run are, the first one being 1."""
    return out if run == 1 else out / f"run{run}"


def stored(out: Path) -> list[dict[str, Any]]:
    """The runs that are there, in order."""
    found, run = [], 1
    while (path := folder(out, run) / "speed.json").exists():
        found.append(json.loads(path.read_text(encoding="utf-8")))
        run += 1
    return found


def speed_table(runs: list[dict[str, Any]]) -> str:
    """Tokens per second of both programs and their ratio, run by run; a ratio that misses its target is bold."""
    rows = []
    for model, found in runs[0]["results"].items():
        if not isinstance(found, dict) or "halfbyte" not in found:
            continue
        for what in ("prompt", "decode"):
            wanted = getattr(targets.SPEED.get(model, targets.OTHERWISE), what)
            cells = [_cell(run["results"].get(model, {}), what, wanted) for run in runs]
            rows.append((model, what, *cells, f"{wanted:.2f}"))
    header = ("Model", "", *(f"Run {i}: t/s, llama.cpp, ratio" for i in range(1, len(runs) + 1)), "Wanted")
    return markdown_table(header, rows)


def _cell(found: dict[str, Any], what: str, wanted: float) -> str:
    name = f"{what}_tps"
    sides = [f"{found[side][name]['median']:.0f}" for side in ("halfbyte", "llama_cpp") if side in found]
    if f"ratio_{name}" in found:
        ratio = found[f"ratio_{name}"]["median"]
        sides.append(f"{ratio:.2f}" if ratio >= wanted else f"**{ratio:.2f}**")
    return ", ".join(sides) or "-"


def table(runs: list[dict[str, Any]]) -> str:
    """Every goal of the first run with what each run measured; met when all of them met it."""
    by_name = [{goal["what"]: goal for goal in run["goals"]} for run in runs]
    rows = []
    for what, goal in by_name[0].items():
        same = [goals.get(what) for goals in by_name]
        measured = [one["measured"] if one else "-" for one in same]
        rows.append((what, *measured, goal["wanted"], "yes" if all(one and one["met"] for one in same) else "**no**"))
    names = [f"{run['machine']['commit']}, {run['machine']['date']}" for run in runs]
    header = ("Goal", *(f"Run {i} ({name})" for i, name in enumerate(names, 1)), "Wanted", "Met by all")
    return markdown_table(header, rows)


def write(out: Path) -> None:
    """OUT/speed-runs.md."""
    runs = stored(out)
    title = f"# Speed, {len(runs)} separate runs"
    text = f"{title}\n\n{speed_table(runs)}\n\n## Goals\n\n{table(runs)}\n"
    (out / "speed-runs.md").write_text(text, encoding="utf-8")
