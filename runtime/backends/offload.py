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
from .placement import ALL, AUTO, CPU, Placement, layers_of, number_of

MARGIN = 256 << 20  # bytes of each GPU that are left free
Free = Callable[[int], int]  # number of a GPU -> bytes
Needed = Callable[[Graph, int, int], int]  # part, pages, tokens -> bytes


class Offload:
    """Chooses places for a graph, see MixedBackend; with AUTO as many of its last layers go to GPUs as have room.

    `least_pages` is the room for keys and values that one request needs: a GPU with less memory than the host gets as
    few pages as that before it gets fewer layers.
    """

    def __init__(self, placement: Placement, free: Free, needed: Needed, least_pages: int | None = None) -> None:
        self._placement, self._free, self._needed, self._least = placement, free, needed, least_pages

    def places(self, graph: Graph, n_pages: int, max_tokens: int) -> tuple[list[str], int]:
        """A device for each node, and how many pages there are. Raises ResourceError where the layers that were asked
        for do not fit: it says how many do.
        """
        asked, least = self._placement, min(n_pages, self._least or n_pages)
        places = self._places(graph, least, max_tokens)
        if asked.gpu_layers != AUTO and not self._fits(graph, places, least, max_tokens):
            raise self._too_many(graph, least, max_tokens)
        pages = n_pages
        while pages > least and not self._fits(graph, places, pages, max_tokens):
            pages = least + (pages - least) // 2
        return places, pages

    def _places(self, graph: Graph, n_pages: int, max_tokens: int) -> list[str]:
        """What was asked for; of AUTO the most that fits."""
        if self._placement.gpu_layers != AUTO:
            return self._placement.of(graph)
        return self._most(graph, n_pages, max_tokens)[1]

    def _most(self, graph: Graph, n_pages: int, max_tokens: int) -> tuple[int, list[str]]:
        """The largest number of layers that fits, and their places."""
        for layers in range(max(layers_of(graph), default=0), -1, -1):
            places = replace(self._placement, gpu_layers=layers).of(graph)
            if self._fits(graph, places, n_pages, max_tokens):
                break
        return layers, places

    def _too_many(self, graph: Graph, n_pages: int, max_tokens: int) -> ResourceError:
        asked = self._placement.gpu_layers
        wanted, layers = max(layers_of(graph)) if asked == ALL else asked, self._most(graph, n_pages, max_tokens)[0]
        return ResourceError(
            f"{wanted} layers do not fit into the memory of the GPU, {layers} would; load with gpu_layers={layers}, "
            'with less context, or with gpu_layers="auto"'
        )

    def _fits(self, graph: Graph, places: Sequence[str], n_pages: int, max_tokens: int) -> bool:
        needed: Counter[int] = Counter()
        for device, part in cut(graph, places):
            if device != CPU:
                needed[number_of(device)] += self._needed(part, n_pages, max_tokens)
        return all(size + MARGIN <= self._free(number) for number, size in needed.items())


def offloading(placement: Placement, least_pages: int | None = None) -> Backend:
    """The backend for a placement, see Offload.

    Raises CUDAError where a GPU that was asked for is not there; AUTO by itself asks for none.
    """
    from .cpu import CPUBackend
    from .cuda import package

    cpu = CPUBackend(share_team=True)
    for number in sorted(placement.gpus):
        package.require(number)
    if not placement.gpus and not (placement.gpu_layers == AUTO and package.count()):
        return cpu
    from .cuda.allocate import free_bytes
    from .cuda.backend import CUDABackend, needed_bytes

    backends: dict[str, Backend] = {CPU: cpu}

    def backend_of(device: str) -> Backend:
        if device not in backends:
            backends[device] = CUDABackend(number_of(device))
        return backends[device]

    return MixedBackend(Offload(placement, free_bytes, needed_bytes, least_pages).places, backend_of)
