"""A graph on several devices: its parts run one after the other, and values go over where one ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..graph.ir import Graph
from ..graph.parts import cut
from ..graph.rewrites import rewrite
from ..step import Step
from .base import Backend, CancelFlag, Executor, Pool, Progress, Values
from .repack import repacked

Places = Callable[[Graph, int, int], tuple[Sequence[str], int]]


class MixedBackend:
    """`places` gives each node of a graph a device, and says how many pages fit, for so many pages and tokens at most;
    `backend_of` gives a device its backend; `holds` says whether its parts leave values there for each other.
    """

    name = "mixed"
    kv_dtype: DTypeLike = np.float16

    def __init__(
        self,
        places: Places,
        backend_of: Callable[[str], Backend],
        holds: Callable[[str], bool] = lambda device: False,
    ) -> None:
        self._places, self._backend_of, self._holds = places, backend_of, holds

    def compile(
        self, graph: Graph, *, n_pages: int, max_tokens: int, threads: int, progress: Progress | None = None
    ) -> MixedExecutor:
        """See base.Backend.compile."""
        graph = repacked(rewrite(graph))
        parts: list[tuple[Graph, Executor]] = []
        try:
            places, n_pages = self._places(graph, n_pages, max_tokens)
            for device, part in cut(graph, places, self._holds):
                executor = self._backend_of(device).compile(
                    part, n_pages=n_pages, max_tokens=max_tokens, threads=threads, progress=progress
                )
                parts.append((part, executor))
        except BaseException:
            for _, executor in parts:
                executor.close()
            raise
        return MixedExecutor(graph, parts)


class MixedExecutor:
    """See base.Executor."""

    def __init__(self, graph: Graph, parts: Sequence[tuple[Graph, Executor]]) -> None:
        self._graph, self._parts = graph, list(parts)
        self.max_tokens = min(executor.max_tokens for _, executor in parts)
        self.kv: Pool = _Pools(parts)

    @property
    def executors(self) -> list[Executor]:
        """Of the parts, in their order."""
        return [executor for _, executor in self._parts]

    def run(self, step: Step, cancel: CancelFlag | None = None) -> NDArray[np.float32]:
        """See base.Executor.run."""
        logits: NDArray[np.float32] = self.run_part(step, {}, cancel)[self._graph.logits.id]
        return logits

    def run_part(self, step: Step, given: Values, cancel: CancelFlag | None = None) -> Values:
        """See base.Executor.run_part."""
        values: dict[int, NDArray[Any]] = dict(given)
        for _, executor in self._parts:
            values.update(executor.run_part(step, values, cancel))
        return values

    def close(self) -> None:
        """Close all parts."""
        for _, executor in self._parts:
            executor.close()


class _Pools:
    """The key/value pools of all parts, page by page."""

    def __init__(self, parts: Sequence[tuple[Graph, Executor]]) -> None:
        self._pools = [executor.kv for _, executor in parts]
        self.n_pages = self._pools[0].n_pages
        self.dtype = self._pools[0].dtype

    def copy_page(self, source: int, target: int) -> None:
        """Copy one page in every layer."""
        for pool in self._pools:
            pool.copy_page(source, target)

    @property
    def n_bytes(self) -> int:
        return sum(pool.n_bytes for pool in self._pools)
