"""Reading the results of a request: the object `Model.generate` and `Model.chat` return."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from ...formats.errors import InvalidRequest
from .generate import GenerateRequest, Token
from .request import End

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Usage:
    """What a generation cost. Times are seconds and are 0.0 where nothing has happened yet.

    prompt_tokens      tokens of the prompt
    cached_tokens      of these, tokens whose state was found in the cache and not computed again
    completion_tokens  tokens sampled, an end-of-generation token included
    queue_seconds      from the call to the first step
    prompt_seconds     from there to the first token
    decode_seconds     from the first token to the last
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    queue_seconds: float
    prompt_seconds: float
    decode_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Speed of decoding, the first token not counted."""
        return (self.completion_tokens - 1) / self.decode_seconds if self.decode_seconds > 0 else 0.0


class Generation:
    """Text as it is generated: iterate over it for pieces of text, or `read()` all of it.

    The work goes on in the background whether or not anybody reads, up to a bound. One thread reads; any thread may
    `cancel()`. Dropping the object, leaving its `with` block, and Ctrl-C while waiting all cancel the request; the
    model stays usable.
    """

    def __init__(self, request: GenerateRequest) -> None:
        self._request = request
        self._on_end: Callable[[Generation], None] | None = None
        self._end: End | None = None
        self._pieces: list[str] = []
        self._reading = threading.RLock()
        self.tokens: list[Token] = []

    @property
    def text(self) -> str:
        """The text read so far; all of it once the generation has been read to its end."""
        return "".join(self._pieces)

    @property
    def ids(self) -> list[int]:
        """The tokens read so far; an end-of-generation token is not among them."""
        return [token.id for token in self.tokens]

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended: "stop" (by the model or a stop string), "length" (no room), "cancelled"; None before that."""
        return self._end.reason if self._end is not None else None  # type: ignore[return-value]

    @property
    def usage(self) -> Usage:
        """Tokens and times so far."""
        r, c = self._request, self._request.clock
        return Usage(
            prompt_tokens=r.n_prompt,
            cached_tokens=r.sequence.n_shared or 0,
            completion_tokens=r.n_sampled,
            queue_seconds=max(0.0, c.started - c.submitted) if c.started else 0.0,
            prompt_seconds=max(0.0, c.first - c.started) if c.first else 0.0,
            decode_seconds=max(0.0, c.last - c.first),
        )

    @property
    def prompt_progress(self) -> tuple[int, int]:
        """Tokens of the prompt that are done, found in the cache or computed, and how many there are."""
        r = self._request
        return (r.n_prompt if r.n_sampled else min(r.sequence.n_done, r.n_prompt)), r.n_prompt

    def events(self) -> Iterator[Token]:
        """The tokens as they come, for those who need ids or probabilities; text held back to the end is in `text`."""
        while (event := self._next()) is not None:
            yield event

    def read(self) -> str:
        """Wait for the end and return the whole text."""
        for _ in self:
            pass
        return self.text

    def cancel(self) -> None:
        """Stop now. The reader sees the end at once, `finish_reason` is "cancelled"."""
        self._request.cancel()

    def on_end(self, callback: Callable[[Generation], None]) -> None:
        """Have `callback(self)` called once, by the thread that reads the end, before it sees the end itself."""
        self._on_end = callback

    def close(self) -> None:
        """Cancel what is still running and note the end."""
        self.cancel()
        with self._reading:  # who reads in another thread sees the end at once
            while self._end is None:
                self._read_event()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        seen = len(self._pieces)
        while self._next() is not None:
            if len(self._pieces) > seen:
                return self._pieces[-1]
        if len(self._pieces) > seen:  # what was held back came with the end
            return self._pieces[-1]
        raise StopIteration

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_end", True) is None:
            self.close()

    def _next(self) -> Token | None:
        """Read one event; None at the end. Raises the error of a request that failed."""
        if not self._reading.acquire(blocking=False):
            raise InvalidRequest("another thread is reading this generation: each event is there once")
        try:
            token = self._read_event() if self._end is None else None
        finally:
            self._reading.release()
        if self._end is not None and self._end.error is not None:
            raise self._end.error
        return token

    def _read_event(self) -> Token | None:
        try:
            event = self._request.next_event()
        except BaseException:  # Ctrl-C while waiting
            self.cancel()
            raise
        if isinstance(event, Token):
            self.tokens.append(event)
            self._add(event.text)
            return event
        self._note_end(event)
        return None

    def _note_end(self, end: End) -> None:
        self._end = end
        self._add(end.text)
        if self._on_end is not None:
            self._on_end(self)

    def _add(self, text: str) -> None:
        if text:
            self._pieces.append(text)
