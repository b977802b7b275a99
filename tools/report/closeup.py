"""One tensor close up: what became of each weight, how weights and levels are spread, how large the errors are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .canvas import Picture, picture, plain_numbers
from .colors import light
from .data import Variant
from .sample import Sample

SIZE = (3.7, 2.8)  # inches
DOTS = 500  # of weights, where a type has no levels
BINS = 121
SIDES = 1.25  # how far beyond the levels weights are shown
MOST_MARKS = 64  # levels that can be told apart as marks

Floats = NDArray[np.float32]


def staircase(variant: Variant, name: str) -> Picture:
    """After against before: a staircase, where the type has levels. Steps are as wide as the weights on them."""
    sample, title = _of(variant), f"{variant.label}: what weights became"
    if sample.levels is None:
        alt = f"{variant.label}: weights of {sample.type.name} against what they were"
        return picture(name, title, alt, SIZE, lambda axis: _draw_dots(axis, sample))
    alt = f"{variant.label}: to which level of {sample.type.name} weights went; each step is a level"
    return picture(name, title, alt, SIZE, lambda axis: _draw_steps(axis, sample))


def distribution(variant: Variant, name: str) -> Picture:
    """How weights are spread before and after, with the codebook where there is one."""
    sample, title = _of(variant), f"{variant.label}: distribution of weights"
    alt = f"{title} before and after, and the codebook of {sample.type.name}"
    if sample.levels is None:
        return picture(name, title, alt, SIZE, lambda axis: _draw_spread(axis, sample))
    return picture(name, title, alt, SIZE, lambda axis: _draw_codebook(axis, sample))


def errors(variant: Variant, name: str, most: float) -> Picture:
    """How often which error was made, up to `most`, which is the same for all models."""
    sample, title = _of(variant), f"{variant.label}: distribution of errors"
    return picture(name, title, title, SIZE, lambda axis: _draw_errors(axis, sample, most))


def widest_error(samples: list[Sample]) -> float:
    """All but a thousandth of the errors are smaller, in each sample."""
    widths = [0.0]
    for sample in samples:
        before, after = sample.finite()
        if len(before):
            widths.append(float(np.quantile(np.abs(after.astype(np.float64) - before), 0.999)))
    return max(widths)


def _of(variant: Variant) -> Sample:
    assert variant.sample is not None
    return variant.sample


def _codebook(sample: Sample) -> NDArray[np.float64]:
    assert sample.levels is not None
    return sample.levels.values


def _draw_steps(axis: Any, sample: Sample) -> None:
    before, after = sample.placed()
    values = _codebook(sample)
    lowest, highest = _ends(values)
    axis.plot([lowest, highest], [lowest, highest], color=light("before"), linewidth=1)
    which = np.searchsorted((values[1:] + values[:-1]) / 2, after)
    order = np.argsort(which, kind="stable")
    groups = np.split(before[order], np.searchsorted(which[order], range(1, len(values))))
    filled = [(value, group) for value, group in zip(values, groups, strict=True) if len(group)]
    spans = [(value, *np.quantile(group, (0.0, 0.01, 0.99, 1.0))) for value, group in filled]
    y, least, low, high, most = np.array(spans, np.float64).reshape(-1, 5).T
    axis.hlines(y, least, most, color=light("soft"), linewidth=1.2)
    axis.hlines(y, low, high, color=light("after"), linewidth=2.2 if len(values) <= MOST_MARKS else 1.2)
    axis.plot((low + high) / 2, y, ".", color=light("after"), markersize=3)  # a step may have no width
    axis.set_xlim(lowest, highest)
    axis.set_ylim(lowest, highest)
    axis.set_xlabel("Weight before, in units of its scale")
    axis.set_ylabel("Level that it became")
    plain_numbers(axis.xaxis, axis.yaxis)


def _draw_dots(axis: Any, sample: Sample) -> None:
    before, after = sample.finite()
    chosen = np.linspace(0, max(0, len(before) - 1), min(len(before), DOTS)).astype(np.int64)
    most = float(np.abs(before[chosen]).max(initial=0)) * 1.08 or 1.0
    axis.plot([-most, most], [-most, most], color=light("before"), linewidth=1)
    axis.plot(before[chosen], after[chosen], "o", color=light("after"), markersize=2, markeredgewidth=0)
    axis.set_xlim(-most, most)
    axis.set_xlabel("Weight before")
    axis.set_ylabel("Weight after")
    plain_numbers(axis.xaxis, axis.yaxis)


def _draw_codebook(axis: Any, sample: Sample) -> None:
    before, after = sample.placed()
    values = _codebook(sample)
    lowest, highest = _ends(values)
    edges = np.linspace(lowest, highest, BINS)
    spread = _density(before, edges)
    # The largest weight of a block is at one end, where it makes a peak that would flatten all else: it is cut off.
    top = 1.6 * float(spread[BINS // 4 : -BINS // 4].max(initial=0)) or math.inf
    _fill(axis, np.minimum(spread, top), edges, "before")
    between = (values[1:] + values[:-1]) / 2
    first, last = between[0] - values[0], values[-1] - between[-1]
    cells = np.array([values[0] - first, *between, values[-1] + last])
    _outline(axis, np.minimum(_density(after, cells), top), cells, "after")
    if len(values) <= MOST_MARKS:
        marks = {"color": light("ink"), "markersize": 7, "markeredgewidth": 0.8, "clip_on": False, "label": "codebook"}
        axis.plot(values, np.zeros(len(values)), "|", **marks)
    axis.set_xlim(lowest, highest)
    axis.set_xlabel("Weight, in units of its scale")
    _finish(axis)


def _draw_spread(axis: Any, sample: Sample) -> None:
    before, after = sample.finite()
    edges = _around_zero(float(np.quantile(np.abs(before), 0.999)) * SIDES if len(before) else 0.0)
    _fill(axis, _density(before, edges), edges, "before")
    _outline(axis, _density(after, edges), edges, "after")
    axis.set_xlim(edges[0], edges[-1])
    axis.set_xlabel("Weight")
    _finish(axis)


def _draw_errors(axis: Any, sample: Sample, most: float) -> None:
    before, after = sample.finite()
    edges = _around_zero(most)
    density = _density(after.astype(np.float64) - before, edges)
    axis.stairs(density, edges, fill=True, color=light("soft"))
    axis.stairs(density, edges, color=light("after"), linewidth=1.1)
    axis.set_xlim(edges[0], edges[-1])
    axis.set_xlabel("Error of a weight (after − before)")
    _finish(axis, legend=False)


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    """A bit beyond the codebook on both sides: weights that were clipped are there."""
    room = (SIDES - 1) / 2 * float(values[-1] - values[0])
    return float(values[0]) - room, float(values[-1]) + room


def _around_zero(most: float) -> NDArray[np.float64]:
    """Edges of bins; of some width also where everything is zero or nearly."""
    width = most if most > 1e-30 else 1.0
    return np.linspace(-width, width, BINS)


def _density(x: Floats | NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of all x per unit of the axis, float64 [len(edges) - 1]; what lies outside counts in the whole."""
    counts = np.histogram(x, edges)[0]
    density: NDArray[np.float64] = counts / np.diff(edges) / max(1, len(x))
    return density


def _fill(axis: Any, density: NDArray[np.float64], edges: NDArray[np.float64], color: str) -> None:
    axis.stairs(density, edges, fill=True, color=light(color), label="before")


def _outline(axis: Any, density: NDArray[np.float64], edges: NDArray[np.float64], color: str) -> None:
    axis.stairs(density, edges, color=light(color), linewidth=1.1, label="after")


def _finish(axis: Any, *, legend: bool = True) -> None:
    axis.set_ylim(0, 1.2 * max(axis.get_ylim()[1], 1e-30))  # room for the legend
    if legend:
        axis.legend(loc="upper left", ncols=3, frameon=False, borderpad=0, handlelength=1.2, columnspacing=1.2)
    axis.set_yticks([])
    axis.set_ylabel("Density")
    axis.spines["left"].set_visible(False)
    plain_numbers(axis.xaxis)
