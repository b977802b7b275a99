"""From logits to text: what happens to a request's logits on the engine thread.

Text is made on the engine thread, not by the reader, because a stop string must end the generation at the very token
that completes it.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import InvalidRequest, TokenizerError
from ..backends.base import CancelFlag
from .request import End, Request
from .sampling import SampledToken, Sampler
from .sequence import Chunk
from .stop import StopStrings


class TextStream(Protocol):
    """Turns token ids into text as they come; holds back incomplete characters."""

    def feed(self, token: int, /) -> str: ...

    def flush(self) -> str: ...


@dataclass(frozen=True)
class Token:
    """One generated token.

    id            its number in the vocabulary
    text          text that became certain with it: empty while a character or a possible stop string is incomplete
    logprob       natural logarithm of its probability before sampling changed anything; None unless asked for
    top_logprobs  the likeliest tokens and their logarithms, best first; None unless asked for
    """

    id: int
    text: str
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] | None = None


class GenerateRequest(Request):
    """Samples one token per step until an end-of-generation token, a stop string, or `limit` tokens in all."""

    def __init__(
        self,
        tokens: list[int],
        *,
        limit: int,
        sampler: Sampler,
        stream: TextStream,
        stops: StopStrings,
        eog_ids: Collection[int],
        cancel: CancelFlag | None = None,
    ) -> None:
        super().__init__(tokens, cancel=cancel)
        self.n_prompt = len(tokens)
        self.n_sampled = 0
        self._limit, self._sampler, self._stream, self._stops = limit, sampler, stream, stops
        self._eog_ids = frozenset(eog_ids)

    def take(self, chunk: Chunk, rows: NDArray[np.float32]) -> None:
        """Sample the next token from the last row."""
        tokens = self.sequence.tokens
        sampled = self._sampler.sample(rows[-1], tokens)
        self.n_sampled += 1
        self.clock.last = time.perf_counter()
        self.clock.first = self.clock.first or self.clock.last
        if sampled.id in self._eog_ids:
            self._end("stop")
            return
        tokens.append(sampled.id)
        text, stopped = self._stops.feed(self._text(sampled.id))
        self.put(_token(sampled, text))
        if stopped:
            self.finish(End("stop"))
        elif len(tokens) >= self._limit:
            self._end("length")

    def _text(self, token: int) -> str:
        try:
            return self._stream.feed(token)
        except InvalidRequest as error:  # a row that only fills the matrix up: nobody asked for it
            raise TokenizerError(f"the model chose a token that its tokenizer lacks: {error}") from error

    def _end(self, reason: str) -> None:
        """Finish with the text held back for an incomplete character or stop string."""
        text, stopped = self._stops.feed(self._stream.flush())
        self.finish(End("stop" if stopped else reason, text=text if stopped else text + self._stops.flush()))


class ReadRequest(Request):
    """Runs a prompt, so that others that begin alike find its state; nobody waits for it."""

    def take(self, chunk: Chunk, rows: NDArray[np.float32]) -> None:
        """All of it was run."""
        self.finish(End("stop"))


class LogitsRequest(Request):
    """Collects the logits of every token of a prompt."""

    def __init__(self, tokens: list[int], vocab_size: int, *, cancel: CancelFlag | None = None) -> None:
        super().__init__(tokens, every_row=True, cancel=cancel)
        self.logits = np.empty((len(tokens), vocab_size), np.float32)

    def take(self, chunk: Chunk, rows: NDArray[np.float32]) -> None:
        """Copy the rows to their place; those of a sequence that had to start over are simply written again."""
        self.logits[chunk.start : chunk.stop] = rows
        if chunk.stop == len(self.logits):
            self.finish(End("stop"))

    def result(self) -> NDArray[np.float32]:
        """The logits, once they are complete, for their only owner.

        A request and its sequence refer to each other: what they hold stays until Python looks for such circles.
        """
        logits, self.logits = self.logits, np.empty((0, 0), np.float32)
        return logits


def _token(sampled: SampledToken, text: str) -> Token:
    return Token(sampled.id, text, sampled.logprob, sampled.top_logprobs)
