"""Sequences on one engine, without anything around them: the interface that both programs are measured through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from halfbyte.formats.gguf import GGUFFile
from halfbyte.runtime.backends.base import Executor
from halfbyte.runtime.backends.mixed import MixedExecutor
from halfbyte.runtime.loading import LoadOptions, choose_backend
from halfbyte.runtime.models import build_model
from halfbyte.runtime.step import PAGE, Step
from numpy.typing import NDArray

from . import roofline

MAX_TOKENS = 512  # largest step of either program


class Engine(Protocol):
    """A model with a fixed number of sequences of tokens."""

    vocab_size: int

    def clear(self) -> None:
        """Forget all sequences."""

    def rewind(self, length: int) -> None:
        """Forget what sequences hold beyond `length` tokens."""

    def run(self, ids: Sequence[int] | NDArray[np.int32], sequence: int = 0) -> NDArray[np.float32]:
        """Append tokens in one step; logits after the last, float32 [vocabulary], valid until the next call."""

    def run_each(self, ids: Sequence[int] | NDArray[np.int32]) -> NDArray[np.float32]:
        """Append ids[i] to sequence i, all in one step; logits, float32 [len(ids), vocabulary], valid likewise."""

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Start over with `ids` in one step; logits after each, float32 [n, vocabulary], valid until the next call."""

    def close(self) -> None:
        """Give back memory and threads."""


class Ours:
    """Halfbyte's executor, called directly. `kv_type` and `gpu_layers` are those of `Model.load`."""

    def __init__(
        self, path: Path, *, context: int, threads: int, backend: str = "cpu", sequences: int = 1,
        kv_type: str | None = None, gpu_layers: int | str = 0,
    ) -> None:  # fmt: skip
        options = LoadOptions(backend=backend, kv_type=kv_type, gpu_layers=gpu_layers)
        n_pages = -(-context // PAGE)
        with GGUFFile.open(path) as file:
            spec = build_model(file, context=context)
            self._executor = choose_backend(spec.graph, options, context).compile(
                spec.graph, n_pages=n_pages * sequences, max_tokens=max(min(context, MAX_TOKENS), sequences),
                threads=threads,
            )  # fmt: skip
            self.work = roofline.work(spec.graph)
        self.vocab_size = spec.vocab_size
        self._pages = np.arange(sequences * n_pages, dtype=np.int32).reshape(sequences, n_pages)
        self._lengths = np.zeros(sequences, np.int32)

    def clear(self) -> None:
        self._lengths[:] = 0

    def rewind(self, length: int) -> None:
        np.minimum(self._lengths, length, out=self._lengths)

    def run(self, ids: Sequence[int] | NDArray[np.int32], sequence: int = 0) -> NDArray[np.float32]:
        return self._append(ids, sequence, [len(ids) - 1]).reshape(-1)

    def run_each(self, ids: Sequence[int] | NDArray[np.int32]) -> NDArray[np.float32]:
        n, rows = len(ids), np.arange(len(ids), dtype=np.int32)
        positions = self._lengths[:n].copy()
        self._grow(slice(n), 1)
        return self._executor.run(Step(np.asarray(ids, np.int32), positions, rows, self._pages[:n], rows, False))

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        self.clear()
        return self._append(ids, 0, range(len(ids)))

    def close(self) -> None:
        self._executor.close()

    @property
    def executors(self) -> list[Executor]:
        """One for each part of the model; one in all where nothing is on a GPU."""
        return self._executor.executors if isinstance(self._executor, MixedExecutor) else [self._executor]

    def peak(self) -> tuple[str, float]:
        """What multiplies a prompt, and multiply-adds per second when it does nothing else."""
        from halfbyte.runtime.backends.cpu.executor import CPUExecutor
        from halfbyte.runtime.backends.cpu.floors import measure

        assert isinstance(self._executor, CPUExecutor)  # the reference has no speed to speak of
        used = roofline.unit({call.kernel for call in self._executor.plans[1].calls})
        return used.name, getattr(measure(self._executor), used.name) / used.times

    def _append(
        self, ids: Sequence[int] | NDArray[np.int32], sequence: int, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        start, n = int(self._lengths[sequence]), len(ids)
        self._grow(slice(sequence, sequence + 1), n)
        tokens, positions = np.asarray(ids, np.int32), np.arange(start, start + n, dtype=np.int32)
        pages, wanted = self._pages[sequence : sequence + 1], np.asarray(outputs, np.int32)
        return self._executor.run(Step(tokens, positions, np.zeros_like(tokens), pages, wanted, n > 1))

    def _grow(self, sequences: slice, n: int) -> None:
        self._lengths[sequences] += n
        if self._lengths.max() > self._pages.shape[1] * PAGE:
            raise ValueError(f"a sequence of {self._lengths.max()} tokens: this engine has room for less")


def step_by_step(engine: Engine, ids: Sequence[int]) -> NDArray[np.float32]:
    """Start over with `ids` one after the other; logits after each: by the kernels of generated tokens."""
    engine.clear()
    return np.stack([engine.run([token]).copy() for token in ids])


@dataclass(frozen=True)
class Greedy:
    """A greedy continuation: the tokens, and the logits each was chosen from."""

    ids: list[int]
    rows: list[NDArray[np.float32]]


def greedy(engine: Engine, prompt: Sequence[int], count: int, ends: frozenset[int]) -> Greedy:
    """Continue with the likeliest token, at most `count` times; one of `ends` is kept and is the last."""
    engine.clear()
    found = Greedy([], [])
    row = engine.run(prompt)
    for _ in range(count):
        token = int(np.argmax(row))
        found.ids.append(token)
        found.rows.append(row.copy())
        if token in ends:
            break
        row = engine.run([token])
    return found
