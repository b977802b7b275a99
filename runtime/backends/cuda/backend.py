"""The CUDA backend: lower the graph, upload its weights, lay out device memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from ...graph.ir import Graph
from ...graph.rewrites import rewrite
from ..base import Progress
from ..repack import repacked
from . import package
from .executor import CUDAExecutor, Plan


class CUDABackend:
    """Executes graphs on one GPU, number `device`."""

    name = "cuda"
    kv_dtype: DTypeLike = np.float16

    def __init__(self, device: int = 0) -> None:
        """Raises CUDAError where there is no GPU of this number, or no package that reaches it."""
        package.require(device)
        self._device = device

    def compile(
        self, graph: Graph, *, n_pages: int, max_tokens: int, threads: int = 1, progress: Progress | None = None
    ) -> CUDAExecutor:
        """See base.Backend.compile. Raises DeviceFull where the device has no room."""
        executor = CUDAExecutor(repacked(rewrite(graph)), n_pages, max_tokens, self._device)
        try:
            if not package.SIMULATED:  # there is nothing to compile there
                executor.warm_up(progress)
        except BaseException:
            executor.close()
            raise
        return executor


def needed_bytes(graph: Graph, n_pages: int, max_tokens: int) -> int:
    """Device memory that `compile` takes, by the same code; nothing is taken and no device is asked."""
    from .allocate import DeviceMemory

    memory = DeviceMemory(dry=True)
    Plan(rewrite(graph), n_pages, max_tokens, memory)
    return memory.n_bytes
