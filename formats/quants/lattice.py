"""How ggml finds scales for groups of weights whose magnitudes are rounded to a grid, 8 or 4 together.

As in search.py all is float32 and in ggml's order. A group is `size` weights, cut into parts of as many as a point of
the grid has coordinates. What errors cost, and how scales of groups are stored, is the same for IQ1 types.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from .bits import Codes, pack
from .codec import BlockCodec, BlockImportance, CodecError, Floats
from .grids import Nearby, grid
from .search import Ints, nearest, total

Mask = npt.NDArray[np.bool_]
AT_ONCE = 1 << 15  # weights: with all tries of scales they take some MiB


@dataclass(frozen=True)
class Search:
    """What differs between the types."""

    grid: str
    distances: int  # see Nearby
    size: int  # of a group
    tries: int  # scales on each side of the first
    step: float  # between them, in levels
    least: float  # a group without a magnitude of at least this counts as zero
    has_all_signs: bool  # or 7 of 8: see `magnitudes`
    again: Literal["off", "any", "all"] = "off"  # parts rounded anew with the scale found: off the grid; all if any is

    @property
    def top(self) -> int:
        """The highest level."""
        return 2 * grid(self.grid).radix - 1

    @property
    def stored(self) -> np.uint8:
        """The bits of signs that are stored."""
        bits: np.uint8 = np.uint8(255 if self.has_all_signs else 127)
        return bits

    def nearby(self) -> Nearby:
        """Finds points near others."""
        return _nearby(self.grid, self.distances)


@dataclass
class Groups:
    """What was found: scales float32[n] from zero on, points int32[n, parts], signs uint8[n, size // 8]."""

    scale: Floats
    points: Ints
    signs: Codes


@cache
def _nearby(name: str, distances: int) -> Nearby:
    """Levels are odd numbers, 1, 3, 5, ..., while scales are searched."""
    points = grid(name)
    return Nearby(points, np.arange(1, 2 * points.radix, 2, dtype=np.float32), distances)


def squares(x: Floats, power: Floats) -> Floats:
    return x * x


def costs(
    codec: type[BlockCodec],
    x: Floats,
    importance: BlockImportance | None,
    mean_squares: int,
    plain: Callable[[Floats, Floats], Floats] | None = None,
) -> Floats:
    """Of an error of each weight of a block; `plain` gives it where there is no importance, of weights and power.

    Large weights count more, from so many times the block's mean square on.
    """
    power = np.float32(mean_squares) * total(x * x) / np.float32(256)
    if importance is not None:
        cost = importance.cost(x, power)
    elif plain is not None:
        cost = plain(x, power)
    else:
        raise CodecError(f"{codec.type.name} needs an importance matrix: without one too little is left of the weights")
    if not np.isfinite(total(cost * np.abs(x))).all():
        raise CodecError(
            f"{codec.type.name}: a block holds a value too large for a float16 scale; store this tensor as F32 or BF16"
        )
    return cost


def magnitudes(x: Floats, w: Floats, search: Search) -> tuple[Floats, Codes]:
    """Magnitudes and the signs of 8, a bit each: float32[n, size] -> float32[n, size], uint8[n, size // 8].

    Where the number of minus signs has to be even, the weight that matters least may get the other sign: its magnitude
    is less than zero then. The last bit follows from the others.
    """
    eights = x.reshape(-1, 8)
    negative = eights < 0
    magnitude = np.where(negative, -eights, eights)
    if not search.has_all_signs:
        odd = np.flatnonzero(negative.sum(axis=1) % 2)
        least = (w.reshape(-1, 8)[odd] * eights[odd] * eights[odd]).argmin(axis=1)
        magnitude[odd, least] *= np.float32(-1)
        negative[odd, least] ^= True
    signs = pack(negative.astype(np.uint8), 1, 1)
    return magnitude.reshape(x.shape), (signs & search.stored).reshape(len(x), -1)


def fit(x: Floats, w: Floats, search: Search) -> Groups:
    """Groups float32[n, size] with what errors cost: tries of scales that make the largest magnitude the top level."""
    magnitude, signs = magnitudes(x, w, search)
    most = magnitude.max(axis=1)
    return fit_from(magnitude, w, signs, most / np.float32(search.top), most, most >= np.float32(search.least), search)


def fit_from(x: Floats, w: Floats, signs: Codes, scale: Floats, most: Floats, kept: Mask, search: Search) -> Groups:
    """As `fit`, from a first scale on, with tries of scales that make `most` the top level. Other groups are zero."""
    step = AT_ONCE // search.size
    parts = []
    for lo in range(0, len(x), step):
        some = slice(lo, lo + step)
        parts.append(_Fit(x[some], w[some], search).run(scale[some], most[some]))
    scale, points = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    # ggml expects no scale below zero, but turns it round where there is one.
    signs = np.where((scale < 0)[:, None], ~signs & search.stored, signs)
    points, signs = (np.where(kept[:, None], v, 0) for v in (points, signs))
    return Groups(np.where(kept, np.abs(scale), np.float32(0)), points, signs)


class _Fit:
    """Some groups, turned so that what is added up one by one are rows: x and w float32[coordinate, part, n]."""

    def __init__(self, x: Floats, w: Floats, search: Search) -> None:
        self.search, self.near = search, search.nearby()
        shape = (len(x), -1, self.near.values.shape[0])
        self.x, self.w = (np.ascontiguousarray(v.reshape(shape).transpose(2, 1, 0)) for v in (x, w))
        self.root, self.wx = np.sqrt(self.w), self.w * self.x

    def run(self, scale: Floats, most: Floats) -> tuple[Floats, Ints]:
        """Scales float32[n], and points int32[n, parts]."""
        search = self.search
        steps = np.arange(-search.tries, search.tries + 1, dtype=np.float32)[:, None]
        inverses = (np.float32(search.top) + steps * np.float32(search.step)) / most
        best = np.zeros_like(scale)
        points = np.zeros(self.x.shape[1:], np.int32)
        is_on = np.full(points.shape, search.again != "any")
        tried = self._points(inverses, np.float32(1) / inverses, np.broadcast_to(True, points.shape))
        for other, other_on in zip(*tried, strict=True):
            by_x, by_level = self._moments(other)
            better = (by_level > 0) & (by_x * by_x > best * by_level)
            scale = np.where(better, by_x / by_level, scale)
            best = np.where(better, scale * by_x, best)
            np.copyto(points, other, where=better)
            np.copyto(is_on, other_on, where=better)
        again = self._again(is_on) & (scale > 0)
        (other,), _ = self._points(np.float32(1) / scale[None], scale[None], again)
        np.copyto(points, other, where=again)
        by_x, by_level = self._moments(points)
        return np.where(again.any(axis=0) & (by_level > 0), by_x / by_level, scale), points.T

    def _again(self, is_on: Mask) -> Mask:
        if self.search.again == "off":
            return ~is_on
        return np.broadcast_to(True if self.search.again == "all" else ~is_on.all(axis=0), is_on.shape)

    def _points(self, inverses: Floats, scales: Floats, only: Mask) -> tuple[Ints, Mask]:
        """The points nearest to the weights, and whether they are those that each weight alone would be rounded to.

        For some scales at once, float32[tries, n]: int32[tries, part, n] and bool[tries, part, n].
        """
        places = np.stack([self._places(inverse) for inverse in inverses])
        points = self.near.on_grid[places]
        is_on = points >= 0
        off = np.nonzero(~is_on & only)
        x, root = (v[:, off[1], off[2]] for v in (self.x, self.root))
        points[off] = self.near.find(places[off], x, root, scales[off[0], off[2]], None)
        return points, is_on

    def _places(self, inverse: Floats) -> npt.NDArray[np.intp]:
        levels = nearest(np.float32(0.5) * (inverse * self.x - np.float32(1)))
        return self.near.grid.places(np.clip(levels, 0, self.near.grid.radix - 1))

    def _moments(self, points: Ints) -> tuple[Floats, Floats]:
        """Sums of w * x * level and of w * level * level, part after part."""
        by_x, by_level = np.zeros(points.shape[1], np.float32), np.zeros(points.shape[1], np.float32)
        for part, numbers in enumerate(points):
            for i, values in enumerate(self.near.values):
                level = values[numbers]
                by_x += self.wx[i, part] * level
                by_level += self.w[i, part] * level * level
        return by_x, by_level


def small_scales(codec: type[BlockCodec], scale: Floats, steps: int, highest: int) -> tuple[Floats, Codes, Mask]:
    """A scale of each block, what it is multiplied with for each group, 2 * code + 1, and which blocks are not zero.

    float32[n, groups] -> float32[n, 1], uint8[n, groups], bool[n]. The largest is `steps` times that of the block.
    """
    most = scale.max(axis=1, keepdims=True)
    kept = most != 0
    d = most / np.float32(steps)
    codes = np.clip(nearest(np.float32(0.5) * (np.float32(1) / d * scale - np.float32(1))), 0, highest)
    return d, np.where(kept, codes, 0).astype(np.uint8), kept[:, 0]
