"""What a backend is: something that turns a graph into an executor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...formats.errors import ResourceError
from ..graph.ir import Graph, Rows, Value
from ..step import Step

Progress = Callable[[str, int, int], None]  # stage, done, total
Values = Mapping[int, NDArray[Any]]  # by the ids that they have in a graph, [rows, cols]


class DeviceFull(ResourceError):
    """A device has no room for what a plan needs there."""


def rows_in(value: Value, n_tokens: int, n_outputs: int) -> int:
    """How many rows a value has in a step of so many tokens, of which so many give logits."""
    return value.repeat * (n_outputs if value.rows is Rows.OUTPUTS else n_tokens)


class CancelFlag:
    """A flag that any thread may set and that kernels poll. Cheap to create: one per request."""

    def __init__(self) -> None:
        self.word = np.zeros(1, np.int64)  # its address is read by running kernels
        self._wakes: list[Callable[[], None]] = []

    def set(self) -> None:
        self.word[0] = 1
        for wake in tuple(self._wakes):
            wake()

    def clear(self) -> None:
        self.word[0] = 0

    def __bool__(self) -> bool:
        return bool(self.word[0])

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """While this lasts, `set` calls `wake` too, on its own thread: who waits for something else need not poll."""
        self._wakes.append(wake)
        try:
            yield
        finally:
            self._wakes.remove(wake)


def checked_flag(cancel: object) -> CancelFlag | None:
    """The flag that was given, if any. TypeError for anything else: whatever counts as true would cancel."""
    if cancel is not None and not isinstance(cancel, CancelFlag):
        raise TypeError(f"cancel must be a CancelFlag, not {type(cancel).__name__}")
    return cancel


class Pool(Protocol):
    """The pages of keys and values of an executor, wherever they are; see cache.kv.KVPool."""

    n_pages: int
    dtype: np.dtype[Any]

    def copy_page(self, source: int, target: int) -> None:
        """Copy one page in every layer: the state of `source` becomes that of `target`."""

    @property
    def n_bytes(self) -> int:
        """Bytes reserved when every page is in use."""


class Executor(Protocol):
    """A graph ready to run. Not thread-safe: the engine calls it from one thread at a time."""

    @property
    def kv(self) -> Pool:
        """Where keys and values are."""

    max_tokens: int  # largest Step this executor accepts

    def run(self, step: Step, cancel: CancelFlag | None = None) -> NDArray[np.float32]:
        """Run one step and return logits, float32 [len(step.outputs), vocabulary]; valid until the next call.

        Raises `Cancelled` when the flag was set while running; the caches of the step's own tokens are then undefined,
        all earlier positions are intact.
        """

    def run_part(self, step: Step, given: Values, cancel: CancelFlag | None = None) -> Values:
        """The same for a part of a graph: from the values that it is given, those that it keeps."""

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
