"""The tokens that are still possible, and how the largest of 150,000 logits are found in a tenth of a millisecond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.intp]

_BLOCK_SHARE = (
    8  # blocks per wanted logit: more make the threshold tighter and the maxima dearer; 4 to 16 time the same
)
_MINUS_INFINITY = np.float32(-np.inf).view(np.uint32)
_SMALL = 4096  # below this sorting everything is as fast


class Candidates:
    """Logits and the token ids they belong to.

    logits     float32[n]; those of the whole vocabulary until a step narrows them
    ids        intp[n], or None while position i is token i
    is_sorted  largest logit first, equal ones by id
    """

    __slots__ = ("_scratch", "_work", "ids", "is_sorted", "logits")

    def __init__(self, logits: Floats, scratch: Floats) -> None:
        """`scratch`: float32[2, n] that outlives a token: new memory costs more than what is done in it."""
        self.logits = logits
        self.ids: Ids | None = None
        self.is_sorted = False
        self._scratch, self._work = scratch

    def writable(self) -> Floats:
        """The whole vocabulary's logits in memory that a step may change: copied there by the first that asks."""
        if self.logits is not self._scratch:
            np.copyto(self._scratch, self.logits)
            self.logits = self._scratch
        return self.logits

    def work(self) -> Floats:
        """Memory as large as the logits, until the next one asks for it."""
        work: Floats = self._work[: self.logits.size]
        return work

    def keep(self, positions: Ids | slice, *, is_sorted: bool) -> None:
        """Drop all candidates but those at `positions`."""
        self.logits = self.logits[positions]
        if self.ids is not None:
            self.ids = self.ids[positions]
        else:
            self.ids = np.arange(positions.stop, dtype=np.intp) if isinstance(positions, slice) else positions
        self.is_sorted = is_sorted

    def keep_where(self, kept: NDArray[np.bool_]) -> None:
        """Drop the candidates that are False in `kept`: by making them impossible where most are kept.

        Gathering 100,000 logits and ids takes ten times as long.
        """
        if self.ids is None and kept.size > _SMALL and np.count_nonzero(kept) > kept.size // 8:
            # Adding -inf by its bits: np.where branches, which takes three times as long.
            bits = self.work().view(np.uint32)
            np.multiply(~kept, _MINUS_INFINITY, out=bits)
            self.logits = np.add(self.logits, bits.view(np.float32), out=self._scratch)
        else:
            self.keep(np.flatnonzero(kept), is_sorted=False)

    def maximum(self) -> float:
        """The largest logit; NaN if any is NaN."""
        return float(self.logits[0] if self.is_sorted else self.logits.max())


class Step(Protocol):
    """One sampler: changes logits or drops candidates."""

    def apply(self, candidates: Candidates, history: Sequence[int]) -> None:
        """`history` holds all token ids so far, the prompt's included."""


def largest(logits: Floats, k: int) -> Ids:
    """Positions of the k largest of `logits` (no NaN), largest first, equal ones by position.

    The k-th largest of the maxima of blocks is at most the k-th largest of all, so everything below it can be dropped
    unsorted: what remains is little more than k. np.argpartition takes 1-2 ms for 150,000 where this takes 0.1.
    """
    n = logits.size
    blocks = _BLOCK_SHARE * k
    if n < _SMALL or blocks * 4 > n:
        return np.argsort(-logits, kind="stable")[:k]
    size = n // blocks
    maxima = logits[: size * blocks].reshape(blocks, size).max(axis=1)
    threshold = np.partition(maxima, blocks - k)[blocks - k]
    found = np.flatnonzero(logits >= threshold)
    return found[np.argsort(-logits[found], kind="stable")[:k]]
