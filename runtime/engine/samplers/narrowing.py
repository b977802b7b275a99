"""Steps that drop unlikely candidates. None sorts or exponentiates the vocabulary when top-k has been there before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .candidates import Candidates, Floats, largest

_FEW = 128  # candidates that hold top_p of the probability where the model is sure
_SAMPLE, _SLACK = 4096, 256  # how many masses are looked at to find the border, and how far it may be off among them


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
        mass = np.subtract(logits, top, out=candidates.work())
        np.exp(mass, out=mass)
        total = float(mass.sum(dtype=np.float64))
        positions = largest(logits, _FEW)
        reach = np.cumsum(mass[positions], dtype=np.float64)
        if reach[-1] >= self._p * total or positions.size == logits.size:
            candidates.keep(positions[: self._count(reach, total)], is_sorted=True)
        else:
            candidates.keep_where(_likeliest(mass, self._p * total, total))

    def _count(self, reach: np.ndarray[tuple[int], np.dtype[np.float64]], total: float) -> int:
        """How many of the sorted candidates are kept, the one that reaches p included."""
        return min(int(np.searchsorted(reach, self._p * total)) + 1, reach.size)


def _likeliest(mass: Floats, target: float, total: float) -> NDArray[np.bool_]:
    """True for the fewest largest of `mass` that add up to `target` of `total`, of equal ones the first.

    A sample says between which two values the smallest one kept lies, so only a tenth of a flat distribution is sorted.
    """
    sample = np.sort(mass[:: max(1, mass.size // _SAMPLE)])[::-1]
    reach = np.cumsum(sample, dtype=np.float64)
    near = int(np.searchsorted(reach, target / total * reach[-1]))
    high = sample[near - _SLACK] if near >= _SLACK else np.float32(np.inf)
    low = sample[near + _SLACK] if near + _SLACK < sample.size else np.float32(0)
    above = mass > high
    border = np.sort(np.compress((mass >= low) & ~above, mass))[::-1]
    missing = target - float(np.dot(mass, above.astype(np.float32)))
    reach = np.cumsum(border, dtype=np.float64)
    if not border.size or not 0 < missing <= reach[-1]:  # the sample misled
        border, missing = np.sort(mass)[::-1], target
        reach = np.cumsum(border, dtype=np.float64)
    count = min(int(np.searchsorted(reach, missing)) + 1, border.size)
    least = border[count - 1]
    kept: NDArray[np.bool_] = mass > least
    kept[np.flatnonzero(mass == least)[: np.count_nonzero(border[:count] == least)]] = True
    return kept


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
            candidates.keep_where(kept)
