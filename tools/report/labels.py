"""Where the names of points go, so that none covers another or a point, and none leaves the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .colors import light

# Places around a point, in points: (right, up, horizontal alignment). The first free one is taken.
_NEAR = [(7, 0, "left"), (-7, 0, "right"), (0, 9, "center"), (0, -9, "center")]
_DIAGONAL = [(6 * s, u, "left" if s > 0 else "right") for u in (8, -8) for s in (1, -1)]
_FAR = [(s * 14, u, "left" if s > 0 else "right") for u in (20, -20, 32, -32, 44, -44, 56, -56) for s in (1, -1)]
PLACES: list[Place] = [*_NEAR, *_DIAGONAL, *_FAR]

Place = tuple[int, int, str]
Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels


def place_labels(
    axis: Any, x: Sequence[float], y: Sequence[float], names: Sequence[str], bars: Sequence[tuple[float, float]]
) -> None:
    """Write the names beside the points; a line leads to one that is far away. `bars` are the ends of error bars."""
    axis.figure.draw_without_rendering()  # sets the limits and the place of the axis
    points, lows, highs = (
        axis.transData.transform([*zip(x, ends, strict=True)]) for ends in (y, *zip(*bars, strict=True))
    )
    blocked = [(px - 7, py - 7, px + 7, py + 7) for px, py in points]
    blocked += [(px - 1, low, px + 1, high) for (px, low), (_, high) in zip(lows, highs, strict=True)]
    extent = axis.get_window_extent()
    frame = (extent.x0, extent.y0, extent.x1, extent.y1)
    for name, *at in zip(names, x, y, strict=True):
        costs = []
        for place in PLACES:
            box = _box(axis, name, at, place)
            costs.append(sum(_overlap(box, other) for other in blocked) + 4 * _outside(box, frame))
            if costs[-1] == 0:
                break
        place = PLACES[int(np.argmin(costs))]
        blocked.append(_box(axis, name, at, place))
        _write(axis, name, at, place)
        if place in _FAR:
            line = {"arrowstyle": "-", "color": light("muted"), "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4}
            axis.annotate("", at, xytext=place[:2], textcoords="offset points", arrowprops=line)


def _write(axis: Any, name: str, at: Sequence[float], place: Place) -> Any:
    right, up, side = place
    return axis.annotate(
        name, at, xytext=(right, up), textcoords="offset points", ha=side, va="center", color=light("ink")
    )


def _box(axis: Any, name: str, at: Sequence[float], place: Place) -> Box:
    """What the name would cover there."""
    label = _write(axis, name, at, place)
    extent = label.get_window_extent(axis.figure.canvas.get_renderer())
    label.remove()
    return extent.x0 - 2, extent.y0 - 1, extent.x1 + 2, extent.y1 + 1


def _overlap(a: Box, b: Box) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _outside(box: Box, frame: Box) -> float:
    inside = _overlap(box, frame)
    return (box[2] - box[0]) * (box[3] - box[1]) - inside
