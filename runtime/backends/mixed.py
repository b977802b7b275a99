"""A graph on several devices: its parts run one after the other, and values go over where one ends."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...formats.errors import HalfbyteError, UnsupportedError
from ..graph.ir import Graph
from ..graph.parts import cut
from ..graph.rewrites import rewrite
from ..step import Step
from .base import Backend, CancelFlag, DeviceFull, Executor, Pool, Progress, Values
from .repack import repacked

Chosen = tuple[Sequence[str], int]
Places = Callable[[Graph, int, int], Chosen]
Instead = Callable[[HalfbyteError, Graph, Chosen, int], Chosen]


class MixedBackend:
    """`places` gives each node of a graph a device, and says how many pages fit, for so many pages and tokens at most;
    `backend_of` gives a device its backend, `holds` says whether its parts leave values there for each other. Where one
    refuses for want of memory or of a kernel, `instead` is asked for other places, or raises.
    """

    name = "mixed"
    kv_dtype: DTypeLike = np.float16

    def __init__(
        self,
        places: Places,
        backend_of: Callable[[str], Backend],
        instead: Instead | None = None,
        holds: Callable[[str], bool] = lambda device: False,
    ) -> None:
        self._places, self._backend_of, self._instead, self._holds = places, backend_of, instead, holds

    def compile(
        self, graph: Graph, *, n_pages: int, max_tokens: int, threads: int, progress: Progress | None = None
    ) -> MixedExecutor:
        """See base.Backend.compile."""
        graph = repacked(rewrite(graph))
        chosen = self._places(graph, n_pages, max_tokens)
        while True:
            try:
                parts = self._parts(graph, chosen, max_tokens=max_tokens, threads=threads, progress=progress)
                return MixedExecutor(graph, parts)
            except (DeviceFull, UnsupportedError) as error:
                if self._instead is None:
                    raise
                _forget(error)
                chosen = self._instead(error, graph, chosen, max_tokens)

    def _parts(self, graph: Graph, chosen: Chosen, **options: Any) -> list[tuple[Graph, Executor]]:
        places, n_pages = chosen
        parts: list[tuple[Graph, Executor]] = []
        try:
            for device, part in cut(graph, places, self._holds):
                parts.append((part, self._backend_of(device).compile(part, n_pages=n_pages, **options)))
        except BaseException:
            for _, executor in parts:
                executor.close()
            raise
        return parts


def _forget(error: BaseException) -> None:
    """Let go of what was taken before an error: its traceback holds it, and what was half made holds itself."""
    found: BaseException | None = error
    while found is not None:
        found.__traceback__ = None
        found = found.__cause__ or found.__context__
    gc.collect()


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
        self._parts.clear()


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
