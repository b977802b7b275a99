"""What a backend is: something that turns a graph into an executor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..cache.kv import KVPool
from ..graph.ir import Graph
from ..step import Step

Progress = Callable[[str, int, int], None]  # stage, done, total


class CancelFlag:
    """A flag that any thread may set and that kernels poll. Cheap to create: one per request."""

    def __init__(self) -> None:
        self.word = np.zeros(1, np.int64)  # its address is read by running kernels

    def set(self) -> None:
        self.word[0] = 1

    def clear(self) -> None:
        self.word[0] = 0

    def __bool__(self) -> bool:
        return bool(self.word[0])


class Executor(Protocol):
    """A graph ready to run. Not thread-safe: the engine calls it from one thread at a time."""

    kv: KVPool
    max_tokens: int  # largest Step this executor accepts

    def run(self, step: Step, cancel: CancelFlag | None = None) -> NDArray[np.float32]:
        """Run one step and return logits, float32 [len(step.outputs), vocabulary]; valid until the next call.

        Raises `Cancelled` when the flag was set while running; the caches of the step's own tokens are then undefined,
        all earlier positions are intact.
        """

    def close(self) -> None:
        """Give back threads and memory."""


class Backend(Protocol):
    """A way to execute graphs."""

    name: str
    kv_dtype: DTypeLike  # how it stores keys and values: decides how many of them fit into memory

    def compile(
        self, graph: Graph, *, n_pages: int, max_tokens: int, threads: int, progress: Progress | None = None
    ) -> Executor:
        """Choose kernels, lay out memory, and return the executor. `n_pages` is the size of the key/value pool."""
