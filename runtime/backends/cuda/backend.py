"""The CUDA backend: lower the graph, upload its weights, lay out device memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from ...graph.ir import Graph
from ...graph.rewrites import rewrite
from ..base import Progress
from ..repack import repacked
from . import package
from .executor import CUDAExecutor, Plan
from .shared import Shared


class CUDABackend:
    """Executes graphs on one GPU, number `device`."""

    name = "cuda"
    kv_dtype: DTypeLike = np.float16

    def __init__(self, device: int = 0) -> None:
        """Raises CUDAError where there is no GPU of this number, or no package that reaches it."""
        package.require(device)
        self._device = device
        self._shared: Shared | None = None

    def compile(
        self, graph: Graph, *, n_pages: int, max_tokens: int, threads: int = 1, progress: Progress | None = None
    ) -> CUDAExecutor:
        """See base.Backend.compile. Raises DeviceFull where the device has no room."""
        before = self._shared
        if before is not None and (before.is_closed or before.max_tokens != max_tokens):
            before = None
        executor = CUDAExecutor(repacked(rewrite(graph)), n_pages, max_tokens, self._device, before)
        try:
            if not package.SIMULATED:  # there is nothing to compile there
                executor.warm_up(progress)
        except BaseException:
            executor.close()
            raise
        self._shared = executor.shared
        return executor


def needed_bytes(graph: Graph, n_pages: int, max_tokens: int) -> int:
    """Device memory that `compile` takes, by the same code, but for `shared_bytes`; no device is asked."""
    from .allocate import DeviceMemory

    graph, memory = rewrite(graph), DeviceMemory(dry=True)
    shared = Shared(DeviceMemory(dry=True), max_tokens)
    shared.prepare(graph)
    Plan(graph, n_pages, max_tokens, memory, shared=shared)
    return memory.n_bytes


def shared_bytes(parts: Sequence[Graph], max_tokens: int) -> int:
    """What all parts of a model on one device take together, besides."""
    from .allocate import DeviceMemory

    shared = Shared(DeviceMemory(dry=True), max_tokens)
    for part in parts:
        shared.prepare(rewrite(part))
    return shared.n_bytes
