"""Layers on GPUs: how many fit, and the backend that runs some there and the others on the CPU.

What fits is computed by the code that takes the memory, without taking it (cuda/allocate.py), with a margin for what
the driver and other programs need.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...formats.errors import HalfbyteError, UnsupportedError
from ..graph.ir import Graph
from ..graph.parts import cut
from .base import Backend, DeviceFull
from .mixed import Chosen, MixedBackend
from .placement import AUTO, CPU, Placement, layers_of, number_of

MARGIN = 256 << 20  # bytes of each GPU that are left free
Free = Callable[[int], int]  # number of a GPU -> bytes
Needed = Callable[[Graph, int, int], int]  # part, pages, tokens -> bytes
Together = Callable[[Sequence[Graph], int], int]  # parts, tokens -> bytes that they share
_log = logging.getLogger(__name__)


class Offload:
    """Chooses places for a graph, see MixedBackend; with AUTO as many of its last layers go to GPUs as have room.

    `least_pages` is the room for keys and values that one request needs: a GPU with less memory than the host gets as
    few pages as that before it gets fewer layers.
    """

    def __init__(
        self,
        placement: Placement,
        free: Free,
        needed: Needed,
        least_pages: int | None = None,
        together: Together = lambda parts, max_tokens: 0,
    ) -> None:
        self._placement, self._free, self._needed, self._least = placement, free, needed, least_pages
        self._together = together

    def places(self, graph: Graph, n_pages: int, max_tokens: int) -> Chosen:
        """A device for each node, and how many pages there are. Raises DeviceFull where the layers that were asked for
        do not fit: it says how many do.
        """
        least = min(n_pages, self._least or n_pages)
        try:
            places = self._places(graph, least, max_tokens)
            pages = n_pages
            while pages > least and not self._fits(graph, places, pages, max_tokens):
                pages = least + (pages - least) // 2
        except UnsupportedError as error:
            return self._on_cpu(error, graph), n_pages
        return places, pages

    def instead(self, error: HalfbyteError, graph: Graph, chosen: Chosen, max_tokens: int) -> Chosen:
        """What to try after a device refused what was chosen: fewer pages, and with AUTO fewer layers, down to none.
        Raises what is to be told otherwise.
        """
        places, pages = list(chosen[0]), chosen[1]
        if isinstance(error, UnsupportedError):
            return self._on_cpu(error, graph, places), pages
        least = min(pages, self._least or pages)
        if pages > least:
            _log.warning("%s; there are fewer pages of keys and values instead", error)
            return places, least
        layers = self._layers(graph, places)
        if self._placement.gpu_layers != AUTO or layers == 0:
            raise self._too_many(graph, least, max_tokens, layers) from error
        fewer, places = self._most(graph, least, max_tokens, layers - 1)
        _log.warning("%s; %s layers are tried instead of %s", error, fewer, layers)
        return places, least

    def _places(self, graph: Graph, n_pages: int, max_tokens: int) -> list[str]:
        """What was asked for; of AUTO the most that fits."""
        most = max(layers_of(graph), default=0)
        if self._placement.gpu_layers == AUTO:
            return self._most(graph, n_pages, max_tokens, most)[1]
        places = self._placement.of(graph)
        if not self._fits(graph, places, n_pages, max_tokens):
            raise self._too_many(graph, n_pages, max_tokens, self._layers(graph, places))
        return places

    def _most(self, graph: Graph, n_pages: int, max_tokens: int, most: int) -> tuple[int, list[str]]:
        """The largest number of layers that fits, up to `most`, and their places."""
        for layers in range(most, -1, -1):
            places = replace(self._placement, gpu_layers=layers).of(graph)
            if self._fits(graph, places, n_pages, max_tokens):
                break
        return layers, places

    def _layers(self, graph: Graph, places: Sequence[str]) -> int:
        """The number of layers that these places are of."""
        for layers in range(max(layers_of(graph), default=0), 0, -1):
            if replace(self._placement, gpu_layers=layers).of(graph) == places:
                return layers
        return 0

    def _too_many(self, graph: Graph, n_pages: int, max_tokens: int, wanted: int) -> DeviceFull:
        if wanted == 0:
            return DeviceFull("the weights that place puts on a GPU do not fit into its memory; place fewer there")
        layers = self._most(graph, n_pages, max_tokens, wanted - 1)[0]
        return DeviceFull(
            f"{wanted} layers do not fit into the memory of the GPU, {layers} would; load with gpu_layers={layers}, "
            'with less context, or with gpu_layers="auto"'
        )

    def _on_cpu(self, error: UnsupportedError, graph: Graph, before: Sequence[str] = ()) -> list[str]:
        """With AUTO no layers on GPUs, instead of an error."""
        places = replace(self._placement, gpu_layers=0).of(graph)
        if self._placement.gpu_layers != AUTO or places == before:
            raise error
        _log.warning("all layers stay on the CPU: %s", error)
        return places

    def _fits(self, graph: Graph, places: Sequence[str], n_pages: int, max_tokens: int) -> bool:
        parts: dict[int, list[Graph]] = {}
        for device, part in cut(graph, places, is_gpu):
            if device != CPU:
                parts.setdefault(number_of(device), []).append(part)
        needed = {
            number: sum(self._needed(part, n_pages, max_tokens) for part in own) + self._together(own, max_tokens)
            for number, own in parts.items()
        }
        return all(size + MARGIN <= self._free(number) for number, size in needed.items())


def is_gpu(device: str) -> bool:
    return device != CPU


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
    from .cuda.backend import CUDABackend, needed_bytes, shared_bytes

    backends: dict[str, Backend] = {CPU: cpu}

    def backend_of(device: str) -> Backend:
        if device not in backends:
            backends[device] = CUDABackend(number_of(device))
        return backends[device]

    chosen = Offload(placement, free_bytes, needed_bytes, least_pages, shared_bytes)
    return MixedBackend(chosen.places, backend_of, chosen.instead, is_gpu)
