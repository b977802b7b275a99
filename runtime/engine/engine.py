"""The engine: one thread that runs steps for requests from any thread.

The thread starts with the first request, sleeps on a condition while there is nothing to do, and is the only one that
touches the scheduler, the caches and the executor. Other threads leave requests in an inbox, and cancelled requests in
a list to reap.

Cancelling ends a request for its reader at once. The step in flight is given up when at least half of its tokens belong
to requests that have ended: running the others again then never costs more than is saved, and nobody can stall a
neighbour by cancelling.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import Cancelled, InvalidRequest
from ..backends.base import CancelFlag, Executor
from ..cache.blocks import BlockManager
from .errors import ModelClosed
from .request import Request
from .runner import Runner
from .scheduler import Scheduler
from .sequence import Chunk

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@dataclass(frozen=True)
class EngineStats:
    """What the engine is doing, for monitoring."""

    num_waiting: int
    num_running: int
    num_preempted: int
    num_tokens: int  # run so far
    num_steps: int
    pages_available: int
    pages_cached: int


class Engine:
    """Owns an executor. `submit` and `close` may be called from any thread. `whole_texts`: none may be cut."""

    def __init__(self, executor: Executor, *, max_sequences: int = 64, whole_texts: bool = False) -> None:
        self.runner = Runner(executor)
        self.cache = BlockManager(executor.kv.n_pages, self.runner.copy_page)
        self.scheduler = Scheduler(
            self.cache, max_tokens=executor.max_tokens, max_sequences=max_sequences, whole_texts=whole_texts
        )
        self._wakeup = threading.Condition()  # guards the fields below; reentrant: __del__ may close us anywhere
        self._inbox: list[Request] = []
        self._ended: list[Request] = []
        self._live: set[Request] = set()
        self._current: list[Chunk] = []
        self._closing = False
        self._flag = CancelFlag()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        _engines.add(self)

    @property
    def is_closed(self) -> bool:
        return self._closing

    def check_open(self) -> None:
        """Raise ModelClosed once `close` was called."""
        if self._closing:
            raise ModelClosed("the model is closed; load it again")

    def submit(self, request: Request, n_tokens: int) -> None:
        """Queue a request that may grow to `n_tokens` tokens. Raises before any work when it can never be served."""
        self._check_caller()
        self.scheduler.check(n_tokens)
        with self._wakeup:
            self.check_open()
            self._start_thread()
            request.attach(self)
            self._live.add(request)
            self._inbox.append(request)
            self._wakeup.notify()

    def reap(self, request: Request) -> None:
        """A request has ended from outside: free what it holds, and give up the step in flight if that pays."""
        if os.getpid() != self._pid:
            return
        with self._wakeup:
            self._ended.append(request)
            if self._is_current_moot():
                self._flag.set()
            self._wakeup.notify()

    def wake(self) -> None:
        """A paused request can go on."""
        with self._wakeup:
            self._wakeup.notify()

    def stats(self) -> EngineStats:
        """A snapshot; the numbers may be one step apart from each other."""
        return EngineStats(
            len(self.scheduler.waiting) + len(self._inbox),
            len(self.scheduler.running),
            self.scheduler.num_preempted,
            self.runner.num_tokens,
            self.runner.num_steps,
            self.cache.num_available,
            self.cache.num_cached,
        )

    def close(self, *, wait: bool = True) -> None:
        """Fail all requests with `ModelClosed`, stop the thread and close the executor. Harmless when repeated."""
        if os.getpid() != self._pid:
            return  # a forked child has neither the thread nor the kernels' team
        with self._wakeup:
            first, self._closing = not self._closing, True
            thread, requests = self._thread, list(self._live)
            self._flag.set()
            self._wakeup.notify()
        for request in requests:
            request.fail(ModelClosed("the model was closed while the request was running"))
        if thread is None:
            if first:
                self.runner.close()
        elif wait and thread is not threading.current_thread():
            thread.join()

    def _start_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._loop, name="halfbyte-engine", daemon=True)
            thread.start()  # may fail: then there is no thread, and the caller learns it
            self._thread = thread

    def check_process(self) -> None:
        """Raise InvalidRequest in a forked child: the thread that does the work is not there."""
        if os.getpid() != self._pid:
            raise InvalidRequest("the model was loaded before a fork; load it in the child, or start children by spawn")

    def _check_caller(self) -> None:
        self.check_process()
        if threading.current_thread() is self._thread:
            raise InvalidRequest("a logits processor cannot use the model that is calling it")

    def _loop(self) -> None:
        try:
            while self._advance():
                pass
        except BaseException as error:  # our own mistake: nobody may be left waiting for a thread that is gone
            self._abandon(error)
        finally:
            self.runner.close()

    def _advance(self) -> bool:
        """One step; False when the engine is to stop. A function, so that an idle engine holds on to no request."""
        chunks = self._next_step()
        if chunks:
            self._run(chunks)
        return chunks is not None

    def _abandon(self, error: BaseException) -> None:
        with self._wakeup:
            self._closing = True
            requests = list(self._live)
        for request in requests:
            request.fail(error)

    def _next_step(self) -> list[Chunk] | None:
        """Wait for work and choose the next step; None when the engine is to stop."""
        with self._wakeup:
            self._current = []
            while True:
                if self._closing:
                    return None
                self._settle()
                if self.scheduler.has_work:
                    break
                self._wakeup.wait()
            self._flag.clear()
            self._current = self.scheduler.schedule()
            return self._current

    def _settle(self) -> None:
        """Move requests that came to the scheduler and those that ended out of it."""
        for request in self._inbox:
            self.scheduler.add(request.sequence)
        self._inbox.clear()
        for request in self._live:
            request.poll_flag()
        for request in self._ended:
            self.scheduler.remove(request.sequence)
            self._live.discard(request)
        self._ended.clear()

    def _is_current_moot(self) -> bool:
        ended = sum(c.count for c in self._current if c.sequence.owner.is_ended)
        return 0 < 2 * ended >= sum(c.count for c in self._current)

    def _run(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            chunk.sequence.owner.mark_started()
        try:
            logits = self.runner.run(chunks, self._flag)
        except Cancelled:
            self.scheduler.roll_back(chunks)  # those who were not cancelled are simply scheduled again
        except Exception as error:
            self.scheduler.roll_back(chunks)
            for chunk in chunks:
                self._fail(chunk, error)
        else:
            self.scheduler.commit(chunks)
            for chunk, rows in zip(chunks, logits, strict=True):
                self._deliver(chunk, rows)

    def _deliver(self, chunk: Chunk, rows: NDArray[np.float32]) -> None:
        owner = chunk.sequence.owner
        if owner.is_ended or not chunk.n_outputs:
            return
        try:
            owner.take(chunk, rows)
        except BaseException as error:  # a user's processor, also sys.exit() there: its own request ends, others go on
            self._fail(chunk, error)
        if owner.is_ended:
            self.reap(owner)

    def _fail(self, chunk: Chunk, error: BaseException) -> None:
        chunk.sequence.owner.fail(error)
        self.reap(chunk.sequence.owner)


@atexit.register
def _close_all() -> None:
    """Stop threads before the interpreter takes memory and mapped files away under running kernels."""
    for engine in list(_engines):
        engine.close()
