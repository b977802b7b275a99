"""Steps that drop unlikely candidates. None sorts or exponentiates the vocabulary when top-k has been there before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .candidates import Candidates, Flags, Floats, block_sums, largest

_FEW = 2048  # below this sorting everything is as fast
_SURE, _SURER = 2.5, 10.0  # standard errors from an estimate to its bounds: wrong once in a hundred times, and never
_MARGIN = 4  # values of the sample by which the bounds are farther still, for an error that is estimated too
_NOTHING = np.finfo(np.float64).tiny


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
        if candidates.is_sorted:
            reach = np.exp(candidates.logits - candidates.logits[0], dtype=np.float64).cumsum()
            candidates.keep(slice(0, _count(reach, self._p * reach[-1])), is_sorted=True)
        else:
            mass = candidates.powers()
            total = float(block_sums(mass).sum())
            candidates.keep_where(_likeliest(mass, max(self._p * total, _NOTHING), total))


def _likeliest(mass: Floats, target: float, total: float, errors: float = _SURE) -> Flags:
    """True for the fewest largest of `mass` that add up to `target` of `total`, of equal ones the first.

    A sample bounds the smallest one kept. What is larger is kept; what lies between the bounds, some 2 % of a flat
    distribution, is looked at in the same way. np.flatnonzero is the dearest here, for each True that it finds: the
    sample is as large as makes it and the sorting of the sample equally dear.
    """
    if mass.size <= _FEW:
        return _likeliest_of_few(mass, target)
    sample = np.sort(mass[:: int(mass.size ** (1 / 3))])
    low, high = _bounds(sample, (total - target) / mass.size, errors)
    kept = mass > high
    between = np.flatnonzero((mass >= low) ^ kept)
    inside = mass[between]
    reach = float(inside.sum(dtype=np.float64))
    missing = target - float(block_sums(mass, kept).sum()) if high < np.inf else target
    if 0 < missing <= reach and low == high:
        kept[between[: math.ceil(missing / float(low))]] = True
        return kept
    if 0 < missing <= reach and between.size <= mass.size // 2:
        kept[between] = _likeliest(inside, missing, reach)
        return kept
    # The sample misled.
    return _likeliest(mass, target, total, _SURER) if errors < _SURER else _likeliest_of_few(mass, target)


def _bounds(sample: Floats, dropped: float, errors: float) -> tuple[np.float32, np.float32]:
    """Two masses with the smallest one kept between them; `dropped`: the mass that may be dropped, for each token."""
    reach = sample.cumsum(dtype=np.float64)
    target = dropped * sample.size
    below = sample[: reach.searchsorted(target)]
    error = errors * math.sqrt(max(0.0, float(np.dot(below, below)) - target**2 / sample.size))
    first = int(reach.searchsorted(target - error)) - _MARGIN
    last = int(reach.searchsorted(target + error)) + _MARGIN
    # All that are smaller than `dropped` are together less than what may be dropped.
    low = max(sample[first] if first >= 0 else 0.0, dropped)
    return np.float32(low), sample[last] if last < sample.size else np.float32(np.inf)


def _likeliest_of_few(mass: Floats, target: float) -> Flags:
    """_likeliest by its definition."""
    ordered = np.sort(mass)[::-1]
    count = _count(ordered.cumsum(dtype=np.float64), target)
    least = ordered[count - 1]
    kept: Flags = mass > least
    kept[np.flatnonzero(mass == least)[: count - np.count_nonzero(kept)]] = True
    return kept


def _count(reach: NDArray[np.float64], target: float) -> int:
    """How many of the sorted candidates are kept, the one that reaches `target` included."""
    return min(int(reach.searchsorted(target)) + 1, reach.size)


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
