"""How long after a cancel the waiting thread is free, and the engine too: in load, in prefill, in decode."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from halfbyte import CancelFlag, Cancelled, Model
from halfbyte.runtime.engine.generation import Generation

from .common import give_up, random_tokens

PATIENCE = 10  # attempts per wanted sample: some work ends before it is cancelled


@dataclass
class Latencies:
    """Seconds from the cancel until the reader was released, and until the engine had nothing left to do."""

    released: list[float] = field(default_factory=list)
    engine_free: list[float] = field(default_factory=list)


def in_load(path: Path, threads: int, count: int, rng: random.Random) -> Latencies:
    """Cancel loads from another thread, at random moments of a load."""
    begin = time.perf_counter()
    Model.load(path, threads=threads).close()
    duration = time.perf_counter() - begin
    found = Latencies()
    for _ in _attempts(found, count):
        flag, moment = CancelFlag(), _Moment(rng.uniform(0, duration))
        moment.then(flag.set)
        try:
            Model.load(path, threads=threads, cancel=flag).close()
        except Cancelled:
            found.released.append(time.perf_counter() - moment.wait())
        else:
            moment.wait()
    return found


def in_prefill(model: Model, prompt_tokens: int, count: int, rng: random.Random) -> Latencies:
    """Cancel while a prompt is read. Every prompt is new: one from the cache would be read at once."""

    def begin(number: int, flag: CancelFlag) -> Generation:
        prompt = random_tokens(prompt_tokens, model.vocab_size, seed=9000 + number).tolist()
        return model.generate(prompt, max_tokens=8, temperature=0, cancel=flag)

    def is_there(generation: Generation) -> bool:
        done, total = generation.prompt_progress
        return done < total

    return _sample(model, begin, is_there, count, lambda: rng.uniform(0.01, 0.2))


def in_decode(model: Model, count: int, rng: random.Random) -> Latencies:
    """Cancel after the first token."""

    def begin(number: int, flag: CancelFlag) -> Generation:
        generation = model.generate(
            f"Chapter {number}. It was", temperature=0.8, seed=number, max_tokens=1000, cancel=flag
        )
        next(generation, None)
        return generation

    def is_there(generation: Generation) -> bool:
        return generation.finish_reason is None

    return _sample(model, begin, is_there, count, lambda: rng.uniform(0.0, 0.05))


def _sample(
    model: Model,
    begin: Callable[[int, CancelFlag], Generation],
    is_there: Callable[[Generation], bool],
    count: int,
    delay: Callable[[], float],
) -> Latencies:
    """`count` latencies of generations that were where they should be when they were cancelled.

    Half of them are cancelled by `Generation.cancel`, half by a flag that only the reader knows of.
    """
    found = Latencies()
    for number in _attempts(found, count):
        flag = CancelFlag()
        generation = begin(number, flag)
        was_there: list[bool] = []
        cancel = partial(_cancel, generation, flag if number % 2 else None, is_there, was_there)
        moment = _Moment(delay())
        moment.then(cancel)
        generation.read()
        released = time.perf_counter()
        since = moment.wait()
        free = _wait_until_free(model)
        if was_there[0] and generation.finish_reason == "cancelled":
            found.released.append(released - since)
            found.engine_free.append(free - since)
    return found


def _cancel(
    generation: Generation, flag: CancelFlag | None, is_there: Callable[[Generation], bool], was_there: list[bool]
) -> None:
    was_there.append(is_there(generation))
    if flag is not None:
        flag.set()
    else:
        generation.cancel()


def _attempts(found: Latencies, count: int) -> Iterator[int]:
    """Numbers of attempts until `found` has `count` samples."""
    for number in range(count * PATIENCE):
        if len(found.released) == count:
            return
        yield number
    give_up("the work ends too fast to be cancelled")


class _Moment:
    """Runs something on another thread after a delay, and remembers when it did."""

    def __init__(self, delay: float) -> None:
        self._delay, self._at = delay, 0.0
        self._thread: threading.Thread | None = None

    def then(self, action: Callable[[], object]) -> None:
        def run() -> None:
            time.sleep(self._delay)
            self._at = time.perf_counter()
            action()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def wait(self) -> float:
        """The time of time.perf_counter at which it ran."""
        assert self._thread is not None
        self._thread.join()
        return self._at


def _wait_until_free(model: Model) -> float:
    """When nothing is running any more."""
    while (stats := model.stats()).num_running or stats.num_waiting:
        time.sleep(0.0005)
    return time.perf_counter()
