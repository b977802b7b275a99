"""The thread team: N threads that run one step together, each in a single call without the GIL.

Between steps threads first spin (a decode step follows the last within microseconds), then sleep on a lock and cost
nothing. The team has no kernels; it is given a table of calls.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from typing import Any

import numpy as np

from ...topology import usable_cpus
from . import objects
from .team_layout import (
    ACTIVE,
    BARRIER_SPIN,
    BARRIER_SPINS,
    CALLS,
    CROWDED_SPINS,
    FAILED,
    LATE,
    MAX_THREADS,
    N_CALLS,
    N_THREADS,
    SHUTDOWN,
    SLEEP,
    SLEEP_TIME,
    SPIN,
    STAMPS,
    STEP_AT,
    STEP_CANCEL,
    WORDS,
    YIELD,
)

SPIN_LIMIT = 20_000  # pauses before sleeping: about a millisecond
FUNCTIONS = ("team.serve", "team.lead", "team.publish")  # compiled like kernels, see compile.py


class Team:
    """`n` threads: the caller of `run` and n - 1 helpers. One step at a time; `run` may be called from any thread."""

    def __init__(self, n: int) -> None:
        self.n = max(1, min(n, MAX_THREADS))
        self._words = np.zeros(WORDS + 8, np.int64)
        base = self._words.ctypes.data
        self._words = self._words[(-base % 64) // 8 :]
        crowded = self.n > usable_cpus()  # a thread that spins keeps another from its work
        self._words[N_THREADS] = self.n
        self._words[SPIN] = SPIN_LIMIT // 50 if crowded else SPIN_LIMIT
        self._words[BARRIER_SPIN] = CROWDED_SPINS if crowded else BARRIER_SPINS
        self._words[YIELD], self._words[SLEEP], self._words[SLEEP_TIME] = _system_calls()
        self._locks = [_closed_lock() for _ in range(self.n)]
        self._serve, self._lead, self._publish = (function(name) for name in FUNCTIONS)
        arguments = (self._serve, self._words, self._locks)
        self._threads = [
            threading.Thread(target=_serve_forever, args=(*arguments, t), name=f"halfbyte-team-{t}", daemon=True)
            for t in range(1, self.n)
        ]
        for thread in self._threads:
            thread.start()
        self._finalizer = weakref.finalize(self, _shut_down, self._publish, self._words, self._locks)
        # Not when Python ends: that comes before engines are closed, and their next step would wait for threads that
        # are gone. These are daemons and end with the process.
        self._finalizer.atexit = False

    def run(self, calls: np.ndarray, step: np.ndarray, cancel: np.ndarray, threads: int | None = None) -> int:
        """Walk `calls` (int64 [n, 3]: kernel, arguments, barrier before) for the step; 1 + the failed call, or 0.

        `threads` is how many of the team's threads take part, all by default.
        """
        words = self._words
        words[ACTIVE] = self.n if threads is None else max(1, min(threads, self.n))
        words[CALLS], words[N_CALLS] = calls.ctypes.data, len(calls)
        words[STEP_AT], words[STEP_CANCEL], words[FAILED] = step.ctypes.data, cancel.ctypes.data, 0
        parked = self._publish(words.ctypes.data, 0)
        for t in range(1, self.n):
            if parked >> t & 1:
                self._locks[t].release()
        return int(self._lead(words.ctypes.data, 0))

    @property
    def late(self) -> int:
        """Waits at barriers so far that ended in sleep, after 50 microseconds: others have the cores."""
        return int(self._words[LATE])

    def stamp(self, address: int) -> None:
        """Have steps note their times there from now on (see profile.py); 0: nowhere."""
        self._words[STAMPS] = address

    def close(self) -> None:
        """End the threads and wait for them."""
        self._finalizer()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()


def _serve_forever(serve: Any, words: np.ndarray, locks: list[threading.Lock], tid: int) -> None:
    while serve(words.ctypes.data, tid):
        locks[tid].acquire()


def _shut_down(publish: Any, words: np.ndarray, locks: list[threading.Lock]) -> None:
    words[SHUTDOWN] = 1
    parked = publish(words.ctypes.data, 0)
    for t, lock in enumerate(locks):
        if parked >> t & 1:
            lock.release()


def _closed_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def function(name: str) -> Any:
    """int64 f(team address, thread), by Numba's calling convention: the result through a pointer, status returned."""
    address = objects.load(name)
    kind = ctypes.CFUNCTYPE(
        ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int64
    )  # releases the GIL
    native = kind(address)

    def call(team: int, tid: int) -> int:
        result, error = ctypes.c_int64(), ctypes.c_void_p()
        native(ctypes.addressof(result), ctypes.addressof(error), team, tid)
        return result.value

    return call


def _system_calls() -> tuple[int, int, int]:
    """Addresses of two functions int f(int), one that gives way and one that sleeps, and the time the latter takes."""
    if sys.platform == "win32":
        kernel32 = ctypes.WinDLL("kernel32")
        functions, time = (kernel32.SwitchToThread, kernel32.Sleep), 1  # milliseconds
    else:
        libc = ctypes.CDLL(None)
        functions, time = (libc.sched_yield, libc.usleep), 50  # microseconds
    give_way, sleep = (ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions)
    return give_way, sleep, time
