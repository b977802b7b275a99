"""Steps that change logits of the whole vocabulary. They touch only the ids they are about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import LogitsError
from ..sampling_errors import SamplingError
from .candidates import Candidates

LogitsProcessor = Callable[[list[int], NDArray[np.float32]], NDArray[np.float32]]


class LogitBias:
    """logit[id] += bias[id]; -inf forbids a token."""

    def __init__(self, bias: Mapping[int, float]) -> None:
        self._ids = np.fromiter(bias.keys(), np.intp, len(bias))
        self._values = np.fromiter(bias.values(), np.float32, len(bias))

    def apply(self, candidates: Candidates, history: Sequence[int]) -> None:
        candidates.writable()[self._ids] += self._values


class Penalties:
    """Makes tokens of the last `last_n` (-1: of all) less likely, by llama.cpp's rules.

    repeat     positive logits are divided by it, others multiplied, once for a token that occurred
    presence   subtracted once
    frequency  subtracted for each occurrence
    """

    def __init__(self, repeat: float, presence: float, frequency: float, last_n: int) -> None:
        self._repeat, self._presence, self._frequency = np.float32(repeat), np.float32(presence), np.float32(frequency)
        self._last_n = last_n

    def apply(self, candidates: Candidates, history: Sequence[int]) -> None:
        recent = history if self._last_n < 0 else history[max(0, len(history) - self._last_n) :]
        if not len(recent):
            return
        ids, counts = np.unique(np.asarray(recent, np.intp), return_counts=True)
        logits = candidates.writable()
        if ids[0] < 0 or ids[-1] >= logits.size:
            raise SamplingError(f"the history holds token {ids[-1]}, but there are only {logits.size:,} tokens")
        old = logits[ids]
        new = np.where(old > 0, old / self._repeat, old * self._repeat)
        logits[ids] = new - (counts * self._frequency + self._presence).astype(np.float32)


class Processors:
    """The caller's functions: `processor(history, logits) -> logits`, in order.

    `history` is a list of the token ids so far. `logits` is float32[vocab] and may be changed in place and returned.
    -inf forbids a token.
    """

    def __init__(self, processors: Sequence[LogitsProcessor]) -> None:
        self._processors = tuple(processors)

    def apply(self, candidates: Candidates, history: Sequence[int]) -> None:
        logits = candidates.writable()
        for processor in self._processors:
            result = np.asarray(processor(list(history), logits))
            if result.shape != logits.shape or result.dtype.kind not in "fiu":
                raise LogitsError(
                    f"a logits processor returned {result.dtype.name}{list(result.shape)}, "
                    f"but must return float32[{logits.size}] (did it forget its return statement?)"
                )
            if result is not logits:
                np.copyto(logits, result, casting="unsafe")
