"""All pictures of a report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .canvas import Picture
from .closeup import distribution, errors, staircase, widest_error
from .data import Report
from .heatmap import Grid, heatmap
from .tradeoff import tradeoff


@dataclass(frozen=True)
class Pictures:
    tradeoff: Picture | None
    heatmaps: Sequence[Picture]  # one for each changed model, or none where nothing changed
    closeups: Sequence[Sequence[Picture]]  # three for each changed model
    left_out: int  # tensors without a place in the heat maps

    def __iter__(self) -> Iterator[Picture]:
        if self.tradeoff:
            yield self.tradeoff
        yield from self.heatmaps
        for group in self.closeups:
            yield from group


def draw(report: Report) -> Pictures:
    """Draw them all. Their names are those of files: digits, letters, dashes."""
    grid = Grid.of(report)
    names = [f"{number}-{_for_file(v.label)}" for number, v in enumerate(report.variants, 1)]
    pairs = [*zip(report.variants, names, strict=True)]
    heatmaps = [heatmap(v, grid, f"layers-{name}") for v, name in pairs if grid.kinds]
    widest = widest_error([v.sample for v in report.variants if v.sample])
    closeups = [
        (
            staircase(v, f"staircase-{name}"),
            distribution(v, f"weights-{name}"),
            errors(v, f"errors-{name}", widest),
        )
        for v, name in pairs
        if v.sample
    ]
    return Pictures(tradeoff(report), heatmaps, closeups, grid.left_out)


def _for_file(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", label)[:40].strip("-") or "model"
