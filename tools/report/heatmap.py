"""Where the errors are: relative RMSE of every tensor of a model, layer by kind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .canvas import Picture, picture, safe
from .colors import RAMP, light
from .data import Report, Variant, split_name
from .numbers import number

WIDTH = 5.0  # inches
MOST_KINDS, MOST_LAYERS = 40, 256  # more are left out, and the page says so
RANGE = 100  # between the largest error and what has the palest colour
OUTSIDE = -2  # the column of tensors that are in no layer, with a gap beside it


@dataclass(frozen=True)
class Scale:
    """Steps of equal ratio from `low` to `high`, the same for all models. What is smaller looks like `low`."""

    low: float
    high: float

    @classmethod
    def of(cls, errors: Iterable[float]) -> Scale:
        """`errors` are finite and above zero; there is at least one."""
        found = list(errors)
        low, high = max(min(found), max(found) / RANGE), max(found)
        if high < 2 * low:  # so that rounding is no pattern
            low, high = low / math.sqrt(2), high * math.sqrt(2)
        return cls(low, high)

    def place(self, error: float) -> float:
        """In steps, from 0 to their number."""
        return len(RAMP) * math.log(error / self.low) / math.log(self.high / self.low)

    def color(self, error: float) -> str:
        return light(RAMP[min(max(0, int(self.place(error))), len(RAMP) - 1)])

    def ticks(self) -> list[float]:
        """Round numbers on the scale, not too near to each other."""
        for steps in ((1, 2, 5), (1, 3), (1,)):
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
            found = [step * 10.0**decade for decade in decades for step in steps]
            inside = [tick for tick in found if self.low <= tick <= self.high]
            if len(inside) <= 6:
                break
        return inside or [self.low, self.high]


@dataclass(frozen=True)
class Grid:
    """The kinds and layers of tensors that changed in at least one model, in the order of the file."""

    kinds: Sequence[str]
    layers: Sequence[int]  # without gaps
    scale: Scale | None  # None where no error is a number above zero
    left_out: int  # tensors

    @classmethod
    def of(cls, report: Report) -> Grid:
        changed = {row["name"] for v in report.variants for row in v.about["tensors"] if row["relative_rmse"] != 0}
        names = [row["name"] for row in report.variants[0].about["tensors"] if row["name"] in changed]
        places = [split_name(name) for name in names]
        kinds = list(dict.fromkeys(kind for _, kind in places))[:MOST_KINDS]
        layers = sorted({layer for layer, _ in places if layer is not None})[:MOST_LAYERS]
        rows, columns = set(kinds), {None, *layers}
        inside = sum(kind in rows and layer in columns for layer, kind in places)
        errors = [row["relative_rmse"] for v in report.variants for row in v.about["tensors"]]
        numbers = [error for error in errors if math.isfinite(error) and error > 0]
        return cls(kinds, layers, Scale.of(numbers) if numbers else None, len(names) - inside)


def heatmap(variant: Variant, grid: Grid, name: str) -> Picture:
    alt = f"{variant.label}: relative RMSE of each tensor; rows are kinds, columns are layers"
    height = 0.85 + 0.17 * len(grid.kinds)
    return picture(
        name, f"{variant.label}: relative RMSE", alt, (WIDTH, height), lambda axis: _draw(axis, variant, grid)
    )


def _draw(axis: Any, variant: Variant, grid: Grid) -> None:
    row_of = {kind: row for row, kind in enumerate(grid.kinds)}
    column_of = {layer: column for column, layer in enumerate(grid.layers)}
    cells: dict[int, list[tuple[int, str]]] = {}  # row -> (column, colour)
    bad: list[tuple[int, int]] = []
    for tensor in variant.about["tensors"]:
        layer, kind = split_name(tensor["name"])
        column = OUTSIDE if layer is None else column_of.get(layer)
        error = tensor["relative_rmse"]
        if kind not in row_of or column is None or error == 0:
            continue
        if not math.isfinite(error):
            bad.append((column, row_of[kind]))
        elif grid.scale is not None:
            cells.setdefault(row_of[kind], []).append((column, grid.scale.color(error)))
    for row, found in cells.items():
        bars = [(column - 0.45, 0.9) for column, _ in found]
        axis.broken_barh(bars, (row - 0.45, 0.9), facecolors=[color for _, color in found], linewidth=0)
    if bad:
        axis.plot(*zip(*bad, strict=True), "x", color=light("warn"), markersize=5, markeredgewidth=1.5)
    _label(axis, grid)
    if grid.scale is not None:
        _draw_scale(axis, grid.scale)


def _label(axis: Any, grid: Grid) -> None:
    axis.set_ylim(len(grid.kinds) - 0.4, -0.6)
    axis.set_yticks(range(len(grid.kinds)), [safe(kind, 22) for kind in grid.kinds])
    last = len(grid.layers) - 1
    axis.set_xlim(OUTSIDE - 0.7, max(last, 0) + 0.6)
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if last / step <= 16)
    shown = list(range(0, last + 1, step))
    axis.set_xticks([OUTSIDE, *shown], ["—", *(f"{grid.layers[column]}" for column in shown)])
    axis.set_xlabel("Layer (—: in none)")
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _draw_scale(axis: Any, scale: Scale) -> None:
    """A strip of the steps beside the map, with the numbers between them."""
    strip = axis.inset_axes((1.025, 0, 0.03, 1))
    strip.bar([0] * len(RAMP), 1, 1, range(len(RAMP)), color=[light(name) for name in RAMP], linewidth=0)
    strip.set_xlim(-0.5, 0.5)
    strip.set_ylim(0, len(RAMP))
    strip.set_xticks([])
    strip.set_yticks([scale.place(tick) for tick in scale.ticks()], [number(tick, 1) for tick in scale.ticks()])
    strip.yaxis.tick_right()
    strip.tick_params(length=0)
    for spine in strip.spines.values():
        spine.set_visible(False)
