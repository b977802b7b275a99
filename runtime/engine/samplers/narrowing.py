"""Steps that drop unlikely candidates. None sorts or exponentiates the vocabulary when top-k has been there before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .candidates import Candidates, Floats, Ids, largest

_FIRST_GUESS = 1024  # candidates that usually hold top_p of the probability
_BINS, _BINS_PER_NAT = 1024, 16  # logits more than 64 below the top share a bin: they hold less than 1e-22 of it


class TopK:
    """Keep the k likeliest; of equal ones those with the lowest ids."""

    def __init__(self, k: int) -> None:
        self._k = k

    def apply(self, candidates: Candidates, history: Sequence[int]) -> None:
        if candidates.is_sorted:
            candidates.keep(slice(0, min(self._k, candidates.logits.size)), is_sorted=True)
        else:
            candidates.keep(largest(candidates.logits, self._k), is_sorted=True)


class TopP:
    """Keep the smallest set of likeliest tokens that holds at least `p` of the probability; always at least one."""

    def __init__(self, p: float) -> None:
        self._p = p

    def apply(self, candidates: Candidates, history: Sequence[int]) -> None:
        logits, top = candidates.logits, np.float32(candidates.maximum())
        if candidates.is_sorted:
            reach = np.cumsum(np.exp(logits - top, dtype=np.float64))
            candidates.keep(slice(0, self._count(reach, reach[-1])), is_sorted=True)
            return
        mass = np.exp(logits - top)
        total = mass.sum(dtype=np.float64)
        positions = largest(logits, _FIRST_GUESS)
        reach = np.cumsum(np.exp(logits[positions] - top, dtype=np.float64))
        if reach[-1] >= self._p * total or positions.size == logits.size:
            candidates.keep(positions[: self._count(reach, total)], is_sorted=True)
        else:
            candidates.keep(self._from_histogram(logits, mass, top), is_sorted=False)

    def _from_histogram(self, logits: Floats, mass: Floats, top: np.float32) -> Ids:
        """Positions to keep of a flat distribution, where sorting all would take tens of milliseconds.

        Whole bins of logits are kept until one crosses p; only that one is sorted.
        """
        bins = np.minimum((top - logits) * np.float32(_BINS_PER_NAT), np.float32(_BINS - 1)).astype(np.intp)
        reach = np.cumsum(np.bincount(bins, weights=mass, minlength=_BINS))
        target = self._p * reach[-1]
        last = min(int(np.searchsorted(reach, target)), _BINS - 1)
        border = np.flatnonzero(bins == last)
        border = border[np.argsort(-logits[border], kind="stable")]
        missing = target - (reach[last - 1] if last else 0.0)
        count = int(np.searchsorted(np.cumsum(mass[border], dtype=np.float64), missing)) + 1
        return np.concatenate([np.flatnonzero(bins < last), border[:count]])

    def _count(self, reach: np.ndarray[tuple[int], np.dtype[np.float64]], total: float) -> int:
        """How many of the sorted candidates are kept, the one that reaches p included."""
        return min(int(np.searchsorted(reach, self._p * total)) + 1, reach.size)


class MinP:
    """Keep tokens at least `p` times as likely as the likeliest."""

    def __init__(self, p: float) -> None:
        self._log_p = math.log(p)

    def apply(self, candidates: Candidates, history: Sequence[int]) -> None:
        threshold = np.float32(candidates.maximum() + self._log_p)
        kept = candidates.logits >= threshold
        if candidates.is_sorted:
            candidates.keep(slice(0, max(1, int(np.count_nonzero(kept)))), is_sorted=True)
        else:
            candidates.keep(np.flatnonzero(kept), is_sorted=False)
