"""The arithmetic of perplexity, as llama.cpp defines it.

The text is cut into windows of `context` tokens that do not overlap; an incomplete last one is left out. Where the
model wants BOS, it takes the place of the first token of every window. Only the second half of a window is scored, so
that every scored token has at least half a window before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..formats.errors import HalfbyteError

ROWS = 16  # rows of logits that are in float64 at once: 16 x 262,144 x 8 bytes = 34 MB


@dataclass
class Estimate:
    """Sums over the scored tokens; grows window by window."""

    n_tokens: int = 0
    _sum: float = 0.0
    _sum_squares: float = 0.0
    windows: list[float] = field(default_factory=list)  # perplexity of each window

    def add(self, nll: NDArray[np.float64]) -> None:
        """Count the negative log-likelihoods of one window, float64 [n]."""
        self.n_tokens += len(nll)
        self._sum += float(nll.sum())
        self._sum_squares += float((nll * nll).sum())
        self.windows.append(_exp(float(nll.mean())))

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood of a token, in nats."""
        return self._sum / self.n_tokens if self.n_tokens else math.nan

    @property
    def ppl(self) -> float:
        """Perplexity: exp of the mean."""
        return _exp(self.nll)

    @property
    def error(self) -> float:
        """Standard error of `ppl`, to first order; NaN for fewer than two tokens."""
        if self.n_tokens < 2:
            return math.nan
        variance = max(0.0, self._sum_squares / self.n_tokens - self.nll**2)
        return math.sqrt(variance / (self.n_tokens - 1)) * self.ppl


def cut_windows(ids: Sequence[int], context: int, bos: int | None) -> Iterator[list[int]]:
    """Windows of exactly `context` tokens; `bos` replaces the first token of each, None leaves it."""
    for start in range(0, len(ids) - context + 1, context):
        window = list(ids[start : start + context])
        if bos is not None:
            window[0] = bos
        yield window


def check_length(n_ids: int, context: int) -> int:
    """The number of windows; raises HalfbyteError when there is none."""
    if context < 4:
        raise HalfbyteError(f"a window of {context} tokens leaves nothing to score; use --context 4 or more")
    if n_ids < context:
        raise HalfbyteError(
            f"the text has {n_ids} tokens, one window needs {context}; use a longer text or a smaller --context"
        )
    return n_ids // context


def score(logits: NDArray[np.float32], window: Sequence[int]) -> NDArray[np.float64]:
    """Negative log-likelihoods of the second half of a window, float64 [len(window) - 1 - len(window) // 2].

    logits[i], float32 [len(window), vocabulary], predicts window[i + 1].
    """
    first = len(window) // 2
    return token_nll(logits[first:-1], np.asarray(window[first + 1 :]))


def token_nll(logits: NDArray[np.float32], targets: NDArray[np.integer]) -> NDArray[np.float64]:
    """-log softmax(logits)[target] of each row, in float64: float32 [n, vocabulary], int [n] -> float64 [n]."""
    nll = np.empty(len(targets), np.float64)
    for start in range(0, len(targets), ROWS):
        rows = logits[start : start + ROWS].astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        chosen = rows[np.arange(len(rows)), targets[start : start + ROWS]]
        nll[start : start + ROWS] = np.log(np.exp(rows).sum(axis=1)) - chosen
    return nll


def _exp(x: float) -> float:
    return math.exp(x) if x < 709 else math.inf
