"""What the executors of one GPU have together: they are parts of a model, and run one after the other.

Values that one part leaves on the device for another lie here, and what cuBLAS needs.
"""

from __future__ import annotations

from typing import Any

from ...graph.ir import Graph
from .allocate import Array, DeviceMemory
from .cublas import CuBLAS, is_used, opened
from .package import SIMULATED, cuda

BRAIN_CAPABILITY = (8, 0)  # of GPUs that have bfloat16


class Shared:
    """For steps of up to `max_tokens` tokens, on the current device. Closes with the last executor that leaves."""

    def __init__(self, memory: DeviceMemory, max_tokens: int) -> None:
        self.max_tokens, self.is_closed = max_tokens, False
        self.stream: Any = None if memory.dry else cuda.stream()
        self.values: dict[int, Array] = {}
        self._memory, self._users = memory, 0
        uses_blas = is_used(max_tokens) and (memory.dry or has_brain(cuda.get_current_device()))
        self.blas: CuBLAS | None = opened(memory, self.stream) if uses_blas else None

    @property
    def n_bytes(self) -> int:
        """Device memory that was taken."""
        return self._memory.n_bytes

    def prepare(self, graph: Graph) -> None:
        """Take what a part needs of it."""
        for value in graph.held:
            if value.id not in self.values:
                count = self.max_tokens * value.repeat * value.cols
                self.values[value.id] = self._memory.empty(count, value.element)
        if self.blas is not None:
            self.blas.prepare(graph, self.max_tokens)

    def join(self) -> Shared:
        self._users += 1
        return self

    def leave(self) -> None:
        """Its device must be the current one."""
        self._users -= 1
        if self._users == 0:
            self.is_closed = True
            self.values.clear()
            if self.blas is not None:
                self.blas.close()


def has_brain(device: Any) -> bool:
    """Whether a GPU has instructions for bfloat16."""
    return SIMULATED or tuple(device.compute_capability) >= BRAIN_CAPABILITY
