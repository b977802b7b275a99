"""Size against cost: one point for each changed model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .canvas import Picture, picture, plain_numbers
from .colors import light
from .data import Report
from .labels import place_labels
from .numbers import number

SIZE = (5.0, 3.5)  # inches


@dataclass(frozen=True)
class Point:
    label: str
    n_bytes: int
    cost: float
    error: float  # standard error; 0 where there is none


def points(report: Report) -> tuple[list[Point], list[Point]]:
    """(those to draw, those that have no place on a logarithmic axis: not finite, or nothing lost)."""
    found = []
    for variant in report.variants:
        text = variant.about.get("text") if report.has_text else None
        cost, error = (text["kl_mean"], text["kl_error"]) if text else (variant.relative_rmse, 0.0)
        found.append(Point(variant.label, variant.n_bytes, cost, error if math.isfinite(error) else 0.0))
    drawn = [point for point in found if math.isfinite(point.cost) and point.cost > 0]
    return drawn, [point for point in found if point not in drawn]


def tradeoff(report: Report) -> Picture | None:
    """Mean divergence, or the relative error of the weights where there was no text. None without a point."""
    drawn, _ = points(report)
    if not drawn:
        return None
    what = "Mean KL divergence (nats per token)" if report.has_text else "Relative RMSE of the weights"
    places = "; ".join(f"{p.label} {p.n_bytes / 1e6:.1f}, {number(p.cost)}" for p in drawn)
    alt = f"{what} against size in MB: {places}"
    return picture("size", "Size against cost", alt, SIZE, lambda axis: _draw(axis, drawn, what))


def _draw(axis: Any, drawn: Sequence[Point], what: str) -> None:
    sizes, costs = [p.n_bytes / 1e6 for p in drawn], [p.cost for p in drawn]
    axis.set_yscale("log")
    lows = [max(p.cost - p.error, p.cost / 10) for p in drawn]  # an error as large as the mean has no lower end here
    highs = [p.cost + p.error for p in drawn]
    axis.vlines(sizes, lows, highs, color=light("after"), linewidth=1.2)
    axis.plot(sizes, costs, "o", color=light("after"), markersize=5, markeredgecolor=light("paper"))
    axis.set_ylim(min(lows) / 1.6, max(highs) * 1.6)
    room = 0.12 * (max(sizes) - min(sizes)) or 0.1 * max(sizes) or 1
    axis.set_xlim(min(sizes) - room, max(sizes) + room)
    axis.set_xlabel("Size of all tensors (MB)")
    axis.set_ylabel(what)
    axis.grid()
    plain_numbers(axis.xaxis, axis.yaxis)
    place_labels(axis, sizes, costs, [p.label for p in drawn], [*zip(lows, highs, strict=True)])
