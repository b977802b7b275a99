"""The points that 8 or 4 neighbouring weights are rounded to together: which there are, and which are near any other.

A point is so many coordinates, each one of few levels. The tables are those of the `gguf` package, which is imported
when one is needed first: it takes longer to import than they take to use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from .bits import Codes
from .codec import Floats
from .search import Ints


@dataclass(frozen=True)
class Grid:
    """The points of one type. Each has a number, which is what a block stores."""

    values: Floats  # float32[points, size]: the weights that a point stands for, without scale and sign
    levels: Codes  # uint8[points, size]: which of the levels each of them is, from 0
    radix: int  # how many levels there are

    def places(self, levels: Ints) -> npt.NDArray[np.intp]:
        """Where points, on the grid or off it, lie among all there could be: int32[size, n] -> intp[n]."""
        place = np.zeros(levels.shape[1:], np.intp)
        for i, level in enumerate(levels):
            place += level * self.radix**i
        return place


@cache
def grid(name: str) -> Grid:
    """Of the type with this name."""
    from gguf import quants

    table = getattr(quants, name)
    table.init_grid()
    values = np.ascontiguousarray(table.grid.reshape(table.grid_shape), np.float32)
    levels = np.searchsorted(np.array(table.grid_map, np.float32), values).astype(np.uint8)
    values.flags.writeable = False
    return Grid(values, levels, len(table.grid_map))


class Nearby:
    """Finds the point of a grid for weights that would be nearest to one off it: the best of those around that one.

    `levels` are the numbers that ggml searches with, which are not quite those that it decodes to. Around a point are
    those at the least distance, and at the next ones, up to so many `distances`.
    """

    def __init__(self, grid: Grid, levels: Floats, distances: int) -> None:
        size = grid.levels.shape[1]
        self.grid = grid
        self.values: Floats = np.ascontiguousarray(levels[grid.levels].T)  # float32[size, points]
        self.on_grid = np.full(grid.radix**size, -1, np.int32)  # numbers of points by their places
        self.on_grid[grid.places(grid.levels.T.astype(np.int32))] = np.arange(len(grid.levels), dtype=np.int32)
        every = np.indices((grid.radix,) * size, np.int16).reshape(size, -1)[::-1]  # by their places
        around = [_around(part, grid.levels.T, distances) for part in np.array_split(every, 16, axis=1)]
        counts = np.concatenate([count for count, _ in around])
        # The numbers of the points around each place, the nearest first: so many, from where its own start.
        self.points = np.concatenate([points for _, points in around]).astype(np.intp)
        self.counts, self.starts = counts, np.cumsum(counts, dtype=np.intp) - counts

    def find(self, places: npt.NDArray[np.intp], x: Floats, w: Floats, scale: Floats, shift: Floats | None) -> Ints:
        """Numbers of the points whose errors, weighted by w, are least; of equal ones the first.

        x and w are float32[size, n], scale float32[n]. shift, float32[n], is added to the levels.
        """
        order = np.argsort(-self.counts[places], kind="stable")  # those with many points around them first
        starts, counts = self.starts[places[order]], self.counts[places[order]]
        x, w, scale = x[:, order], w[:, order], scale[order]
        shift = None if shift is None else shift[order]
        found, least = self.points[starts], np.full(len(order), np.finfo(np.float32).max)
        have_more = np.searchsorted(-counts, -np.arange(counts.max(initial=0)))  # than 0, 1, ... points around them
        for j, n in enumerate(have_more):
            points = self.points.take(starts[:n] + j)
            error = np.zeros(n, np.float32)
            for i, values in enumerate(self.values):
                q = values.take(points) if shift is None else values.take(points) + shift[:n]
                off = scale[:n] * q - x[i, :n]
                error += w[i, :n] * off * off
            better = error < least[:n]
            np.copyto(least[:n], error, where=better)
            np.copyto(found[:n], points, where=better)
        numbers = np.empty(len(order), np.int32)
        numbers[order] = found
        return numbers


def _around(places: npt.NDArray[np.int16], points: Codes, distances: int) -> tuple[npt.NDArray[np.int16], Ints]:
    """How many points are around each place, and which, the nearest first: int16[size, n] and uint8[size, points]."""
    apart = np.zeros((places.shape[1], points.shape[1]), np.int16)
    for here, there in zip(places, points.astype(np.int16), strict=True):
        apart += (here[:, None] - there) ** 2
    limit = apart.min(axis=1)
    for _ in range(1, distances):
        limit = np.where(apart > limit[:, None], apart, np.iinfo(np.int16).max).min(axis=1)
    place, point = np.nonzero(apart <= limit[:, None])
    order = np.lexsort((point, apart[place, point], place))
    return np.bincount(place, minlength=len(apart)).astype(np.int16), point[order].astype(np.int32)
