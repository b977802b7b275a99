"""Time by a GPU's own clock, of many launches in one recording: the host takes longer for one than some kernels run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from halfbyte.runtime.backends.cuda import package

from .cuda_goals import told

REPEATS = 20
ENOUGH, MOST = 2e-3, 500  # seconds of a recording, and launches: a stream takes about a thousand before it blocks
TRIES = 6  # to hold launches back
RECORDED = "recorded"
Launch = Callable[[int, Any], None]  # the number of what takes its turn, a stream
cuda: Any = package.cuda


@dataclass(frozen=True)
class Timed:
    """Seconds of one launch, a median; and how launches went out."""

    seconds: float
    how: str


def measure(launch: Launch, turns: int = 1, stream: Any = None) -> Timed:
    """The time of launch(i, stream), for i from 0 to turns - 1 over and over."""
    stream = cuda.stream() if stream is None else stream
    if package.SIMULATED:
        begin = time.perf_counter()
        launch(0, stream)
        return Timed(time.perf_counter() - begin, "simulated")

    def several(rounds: int) -> None:
        for number in range(rounds * turns):
            launch(number % turns, stream)

    several(1)  # compiles, and touches what takes turns
    guess = _elapsed(lambda: several(1), stream)  # at most: the time between launches is in it
    rounds = max(1, min(MOST // turns, math.ceil(ENOUGH / max(guess, 1e-6))))
    seconds, how = _all(lambda: several(rounds), stream)
    return Timed(seconds / (rounds * turns), how)


def _all(launches: Callable[[], None], stream: Any) -> tuple[float, str]:
    """Of all launches together."""
    # made when it is imported: there is a package
    from halfbyte.runtime.backends.cuda.recorded import recording

    try:
        with cuda.defer_cleanup():  # memory must not be given back in between
            recorded = recording(stream, launches)
        recorded()
    except Exception as error:  # a package or a driver that cannot
        return _held_back(launches, stream), f"held back by a waiting kernel, not recorded: {told(error)}"
    stream.synchronize()
    found = statistics.median(_elapsed(recorded, stream) for _ in range(REPEATS))
    recorded.close()
    return found, RECORDED


def _elapsed(launches: Callable[[], object], stream: Any) -> float:
    begin, end = _between(launches, stream)
    end.synchronize()
    return float(cuda.event_elapsed_time(begin, end)) / 1e3


def _between(launches: Callable[[], object], stream: Any) -> tuple[Any, Any]:
    begin, end = cuda.event(), cuda.event()
    begin.record(stream)
    launches()
    end.record(stream)
    return begin, end


def _held_back(launches: Callable[[], None], stream: Any) -> float:
    """The same without a recording: a kernel waits until the host has made all launches."""
    wait = _waiting()
    began = time.perf_counter()
    launches()
    milliseconds = math.ceil(2e3 * (time.perf_counter() - began))
    for _ in range(TRIES):
        times = []
        for _ in range(REPEATS):
            wait[1, 1, stream](milliseconds)
            begin, end = _between(launches, stream)
            was_held = not begin.query()
            end.synchronize()
            if was_held:
                times.append(float(cuda.event_elapsed_time(begin, end)) / 1e3)
        if 2 * len(times) > REPEATS:
            return statistics.median(times)
        milliseconds *= 2
    raise RuntimeError("no kernel holds launches back until the host has made them all")


def _waiting() -> Any:
    @cuda.jit
    def wait(milliseconds):  # type: ignore[no-untyped-def]
        for _ in range(milliseconds):
            cuda.nanosleep(1_000_000)

    return wait
