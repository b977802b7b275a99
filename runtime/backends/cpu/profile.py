"""Where the time of a step goes: every thread stamps when it begins and ends each call (kernels/walk.py).

The rows of stamps, one for each thread: the start of the walk, then begin and end of each call; thread 0 adds the end
of the walk. What lies between the end of a call and the next begin is the wait at a barrier; there is next to nothing
else in the walk. Threads wait for what others have not finished since the barrier before, so that time belongs to all
calls since then, to each as much as it took itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....formats.errors import UnsupportedError
from ...step import Step
from .compile import ensure_compiled
from .executor import CPUExecutor, Plan
from .lower import Call
from .team import function

CLOCK = "team.clock"


@dataclass(frozen=True)
class StepTimes:
    """One step. Times are seconds, means over the threads, so that start + sum(busy) + sum(wait) is `wall`.

    busy    float64 [calls]   inside kernels
    wait    float64 [calls]   at the barrier behind the call, or its part of the time at one further behind
    start   filling in the step, waking the threads, and returning
    wall    all of `CPUExecutor.run`
    """

    calls: tuple[Call, ...]
    step: Step
    busy: NDArray[np.float64]
    wait: NDArray[np.float64]
    start: float
    wall: float


class Profiler:
    """Notes the times of every step that an executor runs between `with` and the end of it. One at a time."""

    def __init__(self, executor: CPUExecutor) -> None:
        self._executor = executor
        ensure_compiled([CLOCK], workers=1)
        self._clock = function(CLOCK)
        most = max(len(plan.calls) for plan in executor.plans)
        self._stamps = np.zeros(executor.team.n * (2 * most + 2), np.int64)
        self._records: list[tuple[Plan, Step, float, NDArray[np.int64]]] = []
        self._began = self._now()

    def __enter__(self) -> Profiler:
        self._executor.recorder = self._record
        self._executor.team.stamp(self._stamps.ctypes.data)
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.team.stamp(0)
        self._executor.recorder = None

    def take(self) -> list[StepTimes]:
        """The steps since the last call of this. Raises UnsupportedError where kernels have no clock to read."""
        records, self._records = self._records, []
        seconds, ticks = (now - then for now, then in zip(self._now(), self._began, strict=True))
        if ticks <= 0:
            raise UnsupportedError("kernels have no clock on this kind of processor; x86-64 and AArch64 have one")
        return [
            step_times(plan.calls, plan.table[:, 2] != 0, step, wall, (stamps - stamps[0, 0]) * (seconds / ticks))
            for plan, step, wall, stamps in records
        ]

    def _record(self, plan: Plan, step: Step, started: float) -> None:
        wall = time.perf_counter() - started
        n = self._executor.team.n
        used = self._stamps[: n * (2 * len(plan.calls) + 2)]
        self._records.append((plan, step, wall, used.reshape(n, -1).copy()))

    def _now(self) -> tuple[float, int]:
        """The time in seconds and in ticks, of the same moment as nearly as can be."""
        reads = []
        for _ in range(5):
            before, ticks, after = time.perf_counter(), self._clock(0, 0), time.perf_counter()
            reads.append((after - before, (before + after) / 2, ticks))
        _, seconds, ticks = min(reads)
        return seconds, ticks


def step_times(
    calls: tuple[Call, ...], barriers: NDArray[np.bool_], step: Step, wall: float, stamps: NDArray[np.float64]
) -> StepTimes:
    """From stamps in seconds, float64 [threads, 2 * calls + 2], and whether there is a barrier before each call."""
    rows = stamps - stamps[:, :1].min()
    rows[:, -1] = rows[0, -1]  # the step is over for all when it is over for thread 0
    spans = np.diff(rows, axis=1).mean(axis=0)
    busy, gaps = spans[1::2], spans[2::2]
    group = np.cumsum(barriers)  # calls between two barriers have the same number
    waits, together = np.bincount(group, gaps), np.bincount(group, busy)
    wait = busy * (waits / np.where(together > 0, together, 1.0))[group]
    return StepTimes(calls, step, busy, wait, wall - float(busy.sum() + wait.sum()), wall)
