"""Layers on GPUs: how many fit, and the backend that runs some there and the others on the CPU.

What fits is computed by the code that takes the memory, without taking it (cuda/allocate.py), with a margin for what
the driver and other programs need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...formats.errors import ResourceError
from ..graph.ir import Graph
from ..graph.parts import cut
from .base import Backend
from .mixed import MixedBackend
from .placement import ALL, AUTO, CPU, Placement, layers_of

MARGIN = 256 << 20  # bytes of each GPU that are left free
Free = Callable[[int], int]  # number of a GPU -> bytes
Needed = Callable[[Graph, int, int], int]  # part, pages, tokens -> bytes


class Offload:
    """Chooses places for a graph, see MixedBackend; with AUTO as many of its last layers go to GPUs as have room."""

    def __init__(self, placement: Placement, free: Free, needed: Needed) -> None:
        self._placement, self._free, self._needed = placement, free, needed

    def places(self, graph: Graph, n_pages: int, max_tokens: int) -> list[str]:
        """A device for each node. Raises ResourceError where the layers that were asked for do not fit: it says how
        many do.
        """
        asked = self._placement
        if asked.gpu_layers != AUTO:
            places = asked.of(graph)
            if self._fits(graph, places, n_pages, max_tokens):
                return places
        most = max(layers_of(graph), default=0)
        for layers in range(most, -1, -1):
            places = replace(asked, gpu_layers=layers).of(graph)
            if self._fits(graph, places, n_pages, max_tokens):
                break
        if asked.gpu_layers == AUTO:
            return places
        wanted = most if asked.gpu_layers == ALL else asked.gpu_layers
        raise ResourceError(
            f"{wanted} layers do not fit into the memory of the GPU, {layers} would; load with gpu_layers={layers}, "
            'with less context, or with gpu_layers="auto"'
        )

    def _fits(self, graph: Graph, places: Sequence[str], n_pages: int, max_tokens: int) -> bool:
        needed: Counter[int] = Counter()
        for device, part in cut(graph, places):
            if device != CPU:
                needed[number_of(device)] += self._needed(part, n_pages, max_tokens)
        return all(size + MARGIN <= self._free(number) for number, size in needed.items())


def number_of(device: str) -> int:
    """0 of "cuda:0"."""
    return int(device.partition(":")[2])


def offloading(placement: Placement) -> Backend:
    """The backend for a placement. Raises CUDAError where there is no GPU to use, unless AUTO was asked for."""
    from .cpu import CPUBackend
    from .cuda import package

    cpu = CPUBackend(share_team=True)
    if placement.gpu_layers == AUTO and not package.count():
        return cpu
    from .cuda.allocate import free_bytes
    from .cuda.backend import CUDABackend, needed_bytes

    package.require()
    backends: dict[str, Backend] = {CPU: cpu}

    def backend_of(device: str) -> Backend:
        if device not in backends:
            backends[device] = CUDABackend(number_of(device))
        return backends[device]

    return MixedBackend(Offload(placement, free_bytes, needed_bytes).places, backend_of)
