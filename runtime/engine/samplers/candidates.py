"""The tokens that are still possible, and how the largest of 150,000 logits are found in a tenth of a millisecond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.intp]
Flags = NDArray[np.bool_]

_BLOCK_SHARE = (
    8  # blocks per wanted logit: more make the threshold tighter and the maxima dearer; 4 to 16 time the same
)
_SMALL = 4096  # below this sorting everything is as fast
SUM_BLOCK = 512
_SAFE = 40  # of e**40, float32 can hold a vocabulary's sum, and what it cannot hold beside e**-40 is nothing


class Candidates:
    """Logits and the token ids they belong to.

    logits     float32[n]; those of the whole vocabulary until a step narrows them
    ids        intp[n], or None while position i is token i
    kept       bool[n], False where a candidate was dropped but left in its place, or None
    is_sorted  largest logit first, equal ones by id
    """

    __slots__ = ("_maximum", "_scratch", "_work", "ids", "is_sorted", "kept", "logits")

    def __init__(self, logits: Floats, scratch: Floats) -> None:
        """`scratch`: float32[2, n] that outlives a token: new memory of this size costs more than the work in it."""
        self.logits = logits
        self.ids: Ids | None = None
        self.kept: Flags | None = None
        self.is_sorted = False
        self._scratch, self._work = scratch
        self._maximum: float | None = None

    def writable(self) -> Floats:
        """The whole vocabulary's logits in memory that a step may change: copied there by the first that asks."""
        if self.logits is not self._scratch:
            np.copyto(self._scratch, self.logits)
            self.logits = self._scratch
        self._maximum = None
        return self.logits

    def powers(self, scale: float = 1.0) -> Floats:
        """exp(scale * logit) of each, times one factor; of dropped ones too, and only until the next call."""
        powers, top = self._work[: self.logits.size], self.maximum()
        source = self.logits
        if abs(top) * scale > _SAFE:  # usually the largest logit need not be subtracted: a pass less
            source = np.subtract(source, np.float32(top), out=powers)
        if scale != 1:
            source = np.multiply(source, np.float32(scale), out=powers)
        return np.exp(source, out=powers)

    def keep(self, positions: Ids | slice, *, is_sorted: bool) -> None:
        """Drop all candidates but those at `positions`, which hold the likeliest."""
        self.logits = self.logits[positions]
        if self.ids is not None:
            self.ids = self.ids[positions]
        else:
            self.ids = np.arange(positions.stop, dtype=np.intp) if isinstance(positions, slice) else positions
        self.kept = None
        self.is_sorted = is_sorted

    def keep_where(self, kept: Flags) -> None:
        """Drop the candidates that are False in `kept`, never the likeliest: where most are kept, leave all in place.

        Gathering 100,000 logits and ids takes longer than all else that is done with them.
        """
        if self.kept is not None:
            kept &= self.kept
        if self.ids is None and kept.size > _SMALL and np.count_nonzero(kept) > kept.size // 32:
            self.kept = kept
        else:
            self.keep(np.flatnonzero(kept), is_sorted=False)

    def maximum(self) -> float:
        """The largest logit; NaN if any is NaN. No step drops it, so it is looked for once."""
        if self._maximum is None:
            self._maximum = float(self.logits.max())
        return self._maximum


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


def block_sums(values: Floats, kept: Flags | None = None) -> NDArray[np.float64]:
    """Sums of SUM_BLOCK values each, those that are not `kept` counted as 0; last the sum of what is left.

    np.add would take three times as long, and one sum in float32 over all would be less exact.
    """
    whole = values.size // SUM_BLOCK * SUM_BLOCK
    sums = np.empty(whole // SUM_BLOCK + 1)
    blocks, rest = values[:whole].reshape(-1, SUM_BLOCK), values[whole:]
    if kept is None:
        sums[:-1], sums[-1] = np.einsum("ij->i", blocks), rest.sum()
    else:
        weights = kept.astype(np.float32)
        sums[:-1] = np.matmul(blocks[:, None], weights[:whole].reshape(-1, SUM_BLOCK, 1)).ravel()
        sums[-1] = np.dot(rest, weights[whole:])
    return sums
