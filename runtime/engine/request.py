"""A request: what the engine thread and the thread that reads the results share."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import HalfbyteError
from ..backends.base import CancelFlag, checked_flag
from .errors import ExecutionError
from .sequence import Chunk, Sequence

if TYPE_CHECKING:
    from .engine import Engine

MAX_UNREAD = 256  # results nobody has read; beyond it the request pauses, so that a slow reader costs no memory
RESUME_AT = 64
POLL_SECONDS = 0.02  # how often a waiting reader looks at a foreign cancel flag, and on Windows at Ctrl-C


@dataclass(frozen=True)
class End:
    """The last event of a request. `reason` is None when it failed with `error`; `text` is what was still held back."""

    reason: str | None
    error: BaseException | None = None
    text: str = ""


@dataclass
class Clock:
    """When things happened to a request, in seconds of time.perf_counter; 0 means not yet."""

    submitted: float = 0.0
    started: float = 0.0  # first token of the prompt scheduled
    first: float = 0.0  # first and last result
    last: float = 0.0
    ended: float = 0.0


class Request(ABC):
    """Base of the two kinds of request. `take` runs on the engine thread, everything else on any thread."""

    def __init__(self, tokens: list[int], *, every_row: bool = False, cancel: CancelFlag | None = None) -> None:
        self.sequence = Sequence(tokens, self, every_row)
        self.flag = checked_flag(cancel)
        self.clock = Clock()
        self.end: End | None = None
        self._engine: Engine | None = None
        self._events: SimpleQueue[Any] = SimpleQueue()
        self._n_unread = 0
        self._lock = RLock()  # reentrant: the garbage collector may cancel a request at any moment, in any thread

    @property
    def is_paused(self) -> bool:
        return self._n_unread >= MAX_UNREAD

    @property
    def is_ended(self) -> bool:
        return self.end is not None

    def mark_started(self) -> None:
        """Its first tokens are about to run."""
        self.clock.started = self.clock.started or time.perf_counter()

    @abstractmethod
    def take(self, chunk: Chunk, rows: NDArray[np.float32]) -> None:
        """The chunk was run; `rows` are its logits, float32 [chunk.n_outputs, vocabulary], valid during the call."""

    def attach(self, engine: Engine) -> None:
        """The engine accepted the request."""
        self._engine = engine
        self.clock.submitted = time.perf_counter()

    def put(self, event: object) -> None:
        """Hand one result to the reader."""
        with self._lock:
            if self.end is None:
                self._n_unread += 1
                self._events.put(event)

    def finish(self, end: End) -> bool:
        """End the request; only the first end counts, and only for it the answer is True."""
        with self._lock:
            if self.end is not None:
                return False
            self.end = end
            self.clock.ended = time.perf_counter()
            self._events.put(end)
            return True

    def fail(self, error: BaseException) -> None:
        """End the request with an error; what is not ours is wrapped, so that callers meet one family of exceptions."""
        if not isinstance(error, HalfbyteError):
            cause = error
            error = ExecutionError(f"the request failed: {type(cause).__name__}: {cause}")
            error.__cause__ = cause
        self.finish(End(None, error))

    def cancel(self) -> None:
        """Stop as soon as possible; the reader is released at once, whatever the engine is doing."""
        if self.finish(End("cancelled")) and self._engine is not None:
            self._engine.reap(self)

    def poll_flag(self) -> None:
        """Notice a cancel flag that was set by somebody who does not know this request."""
        if self.flag is not None and self.flag:
            self.cancel()

    def next_event(self) -> Any:
        """The next result, or the End; waits for it."""
        while True:
            self.poll_flag()
            if self.end is not None and self.end.reason == "cancelled":
                return self.end  # results nobody has read are dropped: the caller wants to be free now
            try:
                event = self._events.get(timeout=POLL_SECONDS)
            except Empty:
                if self._engine is not None:
                    self._engine.check_process()
                continue
            self._mark_read()
            return event

    def _mark_read(self) -> None:
        with self._lock:
            self._n_unread = max(0, self._n_unread - 1)
            resumed = self._n_unread == RESUME_AT
        if resumed and self._engine is not None:
            self._engine.wake()
