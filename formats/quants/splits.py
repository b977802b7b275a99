"""How ggml rounds groups of weights to three levels: of all ways to cut the sorted group in three, the best one.

The levels are -1, 0 and 1, all shifted up or down. A cut (i, j) gives the lowest level to the i smallest weights, and
the highest to those from the j-th on. What is tried later wins only if it is better, so the order of tries is ggml's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .codec import Floats
from .search import Ints


@dataclass
class Split:
    """Of groups: scales float32[n] from zero on, levels int32[n, size] from 0, and which groups are not zero.

    is_down bool[n, parts]: which shift a group has, or each half of it.
    """

    scale: Floats
    levels: Ints
    is_down: npt.NDArray[np.bool_]
    kept: npt.NDArray[np.bool_]


def of_groups(x: Floats, w: Floats, shift: np.float32, least: np.float32) -> Split:
    """float32[n, size] and what errors cost; groups without a magnitude of at least `least` count as zero."""
    order = _sorted(x)
    sums_x, sums_w = (_sums(np.take_along_axis(v, order, axis=1).T) for v in (w * x, w))
    best, size = _Best(len(x)), x.shape[1]
    shifts = [np.array([-1, 0, 1], np.float32) + s for s in (shift, -shift)]
    low = [(sums_x * v[0], sums_w * v[0] * v[0]) for v in shifts]
    high = [((sums_x[size] - sums_x) * v[2], (sums_w[size] - sums_w) * v[2] * v[2]) for v in shifts]
    for i, j in _cuts(size):
        middle_x, middle_w = sums_x[j] - sums_x[i], sums_w[j] - sums_w[i]
        for is_down, v in enumerate(shifts):
            by_x = low[is_down][0][i] + middle_x * v[1] + high[is_down][0][j]
            by_level = low[is_down][1][i] + middle_w * v[1] * v[1] + high[is_down][1][j]
            best.offer(by_x, by_level, (i, j, is_down))
    return best.split(order, np.abs(x).max(axis=1) >= least, 1)


def of_halves(x: Floats, w: Floats, shift: np.float32, least: np.float32) -> Split:
    """The same where the halves of a group may be shifted differently."""
    order = _sorted(x)
    best, size = _Best(len(x)), x.shape[1]
    is_second = order >= size // 2
    wx, w = (np.take_along_axis(v, order, axis=1) for v in (w * x, w))
    sums_x, sums_w = ([_sums(np.where(is_second == h, v, np.float32(0)).T) for h in (False, True)] for v in (wx, w))
    levels = [np.array([-1, 0, 1], np.float32) + s for s in (shift, -shift)]
    all_x = [[s[size] * v[2] for v in levels] for s in sums_x]
    all_w = [[s[size] * v[2] * v[2] for v in levels] for s in sums_w]
    low = [[s * (v[0] * v[0] - v[1] * v[1]) for v in levels] for s in sums_w]
    high = [[s * (v[1] * v[1] - v[2] * v[2]) for v in levels] for s in sums_w]
    for i, j in _cuts(size):
        moved = [s[i] + s[j] for s in sums_x]
        by_x = [[all_x[h][k] - moved[h] for k in (0, 1)] for h in (0, 1)]
        by_level = [[all_w[h][k] + low[h][k][i] + high[h][k][j] for k in (0, 1)] for h in (0, 1)]
        for k in range(4):
            first, second = divmod(k, 2)
            best.offer(by_x[0][first] + by_x[1][second], by_level[0][first] + by_level[1][second], (i, j, k))
    return best.split(order, np.abs(x).max(axis=1) >= least, 2)


def _sorted(x: Floats) -> npt.NDArray[np.intp]:
    """The order of weights from the smallest on. Equal ones stay as they are: so does glibc's qsort, a merge sort."""
    return np.argsort(x, axis=1, kind="stable")


def _sums(terms: Floats) -> Floats:
    """Of the first 0, 1, ... rows: float32[size, n] -> float32[size + 1, n]."""
    sums = np.zeros((len(terms) + 1, terms.shape[1]), np.float32)
    np.add.accumulate(terms, axis=0, out=sums[1:])
    return sums


def _cuts(size: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(size + 1) for j in range(i, size + 1)]


class _Best:
    """The best of what was tried, of each group."""

    def __init__(self, count: int) -> None:
        self.scale = np.zeros(count, np.float32)
        self.score = np.full(count, np.finfo(np.float32).min)
        self.number = np.full(count, -1, np.int32)
        self.tried: list[tuple[int, int, int]] = []

    def offer(self, by_x: Floats, by_level: Floats, cut: tuple[int, int, int]) -> None:
        """Sums of w * x * level and of w * level * level for a cut and a choice of shifts."""
        better = np.flatnonzero((by_level > 0) & (by_x * by_x > self.score * by_level))
        if len(better):
            scale = by_x[better] / by_level[better]
            self.scale[better], self.score[better] = scale, scale * by_x[better]
            self.number[better] = len(self.tried)
        self.tried.append(cut)

    def split(self, order: npt.NDArray[np.intp], kept: npt.NDArray[np.bool_], parts: int) -> Split:
        """A scale below zero turns levels and shifts round."""
        i, j, shifts = np.array(self.tried, np.int32)[self.number].T
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), axis=1)
        levels = (rank >= i[:, None]).astype(np.int32) + (rank >= j[:, None])
        is_down = (shifts[:, None] >> np.arange(parts)[::-1] & 1) > 0
        turned = (self.scale < 0)[:, None]
        kept = kept & (self.number >= 0)
        return Split(np.abs(self.scale), np.where(turned, 2 - levels, levels), (is_down ^ turned) & kept[:, None], kept)
