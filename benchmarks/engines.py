"""One sequence on one engine, without anything around it: the interface that both programs are measured through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from halfbyte.formats.gguf import GGUFFile
from halfbyte.runtime.backends.base import Backend
from halfbyte.runtime.models import build_model
from halfbyte.runtime.step import PAGE, Step
from numpy.typing import NDArray

MAX_TOKENS = 512  # largest step of either program


class Engine(Protocol):
    """A model with one sequence of tokens."""

    vocab_size: int

    def clear(self) -> None:
        """Forget the sequence."""

    def run(self, ids: Sequence[int] | NDArray[np.int32]) -> NDArray[np.float32]:
        """Append tokens in one step; logits after the last, float32 [vocabulary], valid until the next call."""

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Start over with `ids` in one step; logits after each, float32 [n, vocabulary], valid until the next call."""

    def close(self) -> None:
        """Give back memory and threads."""


class Ours:
    """Halfbyte's executor, called directly."""

    def __init__(self, path: Path, *, context: int, threads: int, backend: str = "cpu") -> None:
        n_pages = -(-context // PAGE)
        with GGUFFile.open(path) as file:
            spec = build_model(file, context=context)
            self._executor = _backend(backend).compile(
                spec.graph, n_pages=n_pages, max_tokens=min(context, MAX_TOKENS), threads=threads
            )
        self.vocab_size = spec.vocab_size
        self._pages = np.arange(n_pages, dtype=np.int32)[None]
        self._length = 0

    def clear(self) -> None:
        self._length = 0

    def run(self, ids: Sequence[int] | NDArray[np.int32]) -> NDArray[np.float32]:
        rows = self._step(np.asarray(ids, np.int32), np.array([len(ids) - 1], np.int32))
        return rows.reshape(-1)

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        self.clear()
        return self._step(np.asarray(ids, np.int32), np.arange(len(ids), dtype=np.int32))

    def close(self) -> None:
        self._executor.close()

    def _step(self, tokens: NDArray[np.int32], outputs: NDArray[np.int32]) -> NDArray[np.float32]:
        positions = np.arange(self._length, self._length + len(tokens), dtype=np.int32)
        self._length += len(tokens)
        return self._executor.run(Step(tokens, positions, np.zeros_like(tokens), self._pages, outputs, len(tokens) > 1))


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


def _backend(name: str) -> Backend:
    if name == "reference":
        from halfbyte.runtime.backends.reference import ReferenceBackend

        return ReferenceBackend()
    from halfbyte.runtime.backends.cpu import CPUBackend

    return CPUBackend()
