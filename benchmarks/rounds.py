"""Turns of two programs that are in memory together: what disturbs the machine disturbs both sides of a ratio."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import peers
from .common import Runs, random_tokens, read_anew
from .engines import MAX_TOKENS, Engine, Ours

OURS, THEIRS = "halfbyte", "llama_cpp"  # as in the stored results
After = Callable[[int, NDArray[np.int32]], None]  # number of the round, its prompt
PAUSE = 0.1  # seconds between turns: waiting threads of the other program stop spinning within a few milliseconds


def read(engine: Engine, ids: NDArray[np.int32], sequence: int = 0) -> None:
    """Append a prompt of any length, in the steps that both programs take."""
    for start in range(0, len(ids), MAX_TOKENS):
        engine.run(ids[start : start + MAX_TOKENS], sequence)


@dataclass
class Timing:
    """Rounds of one engine. `cpu_share` is process time by wall time by thread: below 1, something else took time."""

    prompt_tps: list[float] = field(default_factory=list)
    decode_tps: list[float] = field(default_factory=list)
    cpu_share: list[float] = field(default_factory=list)

    def measure(self, engine: Engine, prompt: NDArray[np.int32], rest: NDArray[np.int32], threads: int) -> None:
        """A prompt, and then single tokens, each with logits."""
        engine.clear()
        time.sleep(PAUSE)
        cpu, begin = time.process_time(), time.perf_counter()
        read(engine, prompt)
        middle = time.perf_counter()
        for token in rest:
            engine.run([int(token)])
        end = time.perf_counter()
        self.prompt_tps.append(len(prompt) / (middle - begin))
        self.decode_tps.append(len(rest) / (end - middle))
        self.cpu_share.append((time.process_time() - cpu) / (end - begin) / threads)

    def measure_again(self, engine: Engine, length: int, rest: NDArray[np.int32]) -> None:
        """Only the single tokens, at the same depth: behind `length` tokens that are there already."""
        engine.rewind(length)
        time.sleep(PAUSE)
        begin = time.perf_counter()
        for token in rest:
            engine.run([int(token)])
        self.decode_tps.append(len(rest) / (time.perf_counter() - begin))


class Pair:
    """Halfbyte and, where it is installed, llama.cpp, on the same model. Use as a context manager."""

    def __init__(
        self, path: Path, *, context: int, threads: int, flash_attention: str = "auto", sequences: int = 1
    ) -> None:
        read_anew(path)
        self.ours = Ours(path, context=context, threads=threads, sequences=sequences)
        self.engines: dict[str, Engine] = {OURS: self.ours}
        self.build: str | None = None
        if peers.is_installed():
            theirs = peers.LlamaCpp(
                path, context=context, threads=threads, flash_attention=flash_attention, sequences=sequences
            )
            self.engines[THEIRS], self.build = theirs, theirs.build

    def turns(self, number: int) -> list[tuple[str, Engine]]:
        """Both sides in the order of round `number`: it swaps every time."""
        return list(self.engines.items())[:: 1 if number % 2 else -1]

    def timings(self) -> dict[str, Timing]:
        """An empty one for each side."""
        return {side: Timing() for side in self.engines}

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self.engines.values():
            engine.close()


def play(
    pair: Pair, *, count: int, n_prompt: int, n_gen: int, threads: int, after: After | None = None
) -> dict[str, Timing]:
    """`count` rounds of a prompt and single tokens on both sides, after one that is not counted.

    `after` is called at the end of each round with its number, 0 for the one that does not count, and its prompt.
    """
    timings = pair.timings()
    for number in range(count + 1):
        if number == 1:
            timings = pair.timings()
        ids = random_tokens(n_prompt + n_gen, pair.ours.vocab_size, seed=number)
        for side, engine in pair.turns(number):
            timings[side].measure(engine, ids[:n_prompt], ids[n_prompt:], threads)
        if after:
            after(number, ids[:n_prompt])
    return timings


def ratio(timings: dict[str, Timing], what: str) -> Runs | None:
    """Ours by theirs, round by round; None where only one side was measured."""
    if THEIRS not in timings:
        return None
    ours, theirs = (Runs(tuple(getattr(timings[side], what))) for side in (OURS, THEIRS))
    return ours.ratio(theirs)


def as_json(timings: dict[str, Timing]) -> dict[str, Any]:
    """All numbers of both sides, and their ratios."""
    data: dict[str, Any] = {
        side: {what: Runs(tuple(runs)).as_json() for what, runs in vars(timing).items() if runs}
        for side, timing in timings.items()
    }
    for what in ("prompt_tps", "decode_tps"):
        if found := ratio(timings, what):
            data[f"ratio_{what}"] = found.as_json()
    return data


def cells(timings: dict[str, Timing], what: str, digits: int = 1) -> list[str]:
    """For a table: our median, theirs, and their ratio with its spread."""
    both = [Runs(tuple(getattr(timings[side], what))) if side in timings else None for side in (OURS, THEIRS)]
    found = ratio(timings, what)
    return [*(f"{runs.median:.{digits}f}" if runs else "-" for runs in both), found.show(2) if found else "-"]
