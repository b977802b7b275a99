"""Which part of a model runs where: a device for each node of its graph, by layers and by names of weights.

Layers are counted from the end, as `-ngl` does: of `gpu_layers` layers the last ones go to GPUs, and the output head
with them; the embedding follows when all layers are there. `split` shares these layers between several GPUs, in
proportion. `places` come last: pairs of a regular expression and a device, the first of which is found in a name of a
node's weights decides. Nodes without weights follow where less has to go over then: what is computed between matrices
of experts, and their sum, is computed where these are.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ...formats.errors import InvalidRequest
from ..graph.ir import Graph, Node

CPU = "cpu"
ALL, AUTO = -1, -2  # of gpu_layers
_LAYER = re.compile(r"blk\.(\d+)\.")
_DEVICE = re.compile(r"cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class Placement:
    """What was asked for; AUTO is for offload.py, which knows how many fit."""

    gpu_layers: int = 0
    split: tuple[float, ...] = ()
    places: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.split and not _are_shares(self.split):
            raise InvalidRequest(f"tensor_split={self.split}: shares are numbers of at least 0, and one is above")
        for pattern, device in self.places:
            if not _DEVICE.fullmatch(device):
                raise InvalidRequest(f"place {pattern}={device}: a device is cpu, cuda or cuda:N")
            try:
                re.compile(pattern)
            except re.error as error:
                raise InvalidRequest(f"place {pattern}={device}: this is no regular expression: {error}") from None

    @property
    def gpus(self) -> set[int]:
        """Numbers of the GPUs that must be there. AUTO by itself asks for none."""
        shared = {number for number, share in enumerate(self.split) if share > 0}
        named = {number_of(device) for _, device in self.places if device != CPU}
        return named | shared | ({0} if not self.split and self.gpu_layers not in (0, AUTO) else set())

    def of(self, graph: Graph) -> list[str]:
        """The device of each node: "cpu" or "cuda:N"."""
        layers = layers_of(graph)
        n_layer = max(layers, default=-1)  # the output head counts as one behind the last
        wanted = n_layer if self.gpu_layers == ALL else min(self.gpu_layers, n_layer)
        first = n_layer - wanted if wanted < n_layer else -1  # with all layers goes what comes before them
        by_layer = [self._gpu(layer - first, n_layer + 1 - first) if wanted and layer >= first else CPU
                    for layer in layers]  # fmt: skip
        overridden = [self._overridden(node) for node in graph.nodes]
        places = [chosen or device for chosen, device in zip(overridden, by_layer, strict=True)]
        return _followed(graph, by_layer, places)

    def _gpu(self, index: int, count: int) -> str:
        """Of layer `index` of `count`."""
        below = list(accumulate(self.split or (1.0,)))
        return f"cuda:{next(number for number, share in enumerate(below) if index < count * (share / below[-1]))}"

    def _overridden(self, node: Node) -> str:
        for pattern, device in self.places:
            if any(re.search(pattern, weight.name) for weight in node.weights.values()):
                return "cuda:0" if device == "cuda" else device
        return ""


def _followed(graph: Graph, by_layer: Sequence[str], places: Sequence[str]) -> list[str]:
    """The places, but for nodes without weights: these follow neighbours that were placed by name where less has to go
    over then. Attention, with its keys and values, only does if all its neighbours are there.
    """
    found, neighbours = list(places), _neighbours(graph)
    for back in (False, True):  # where as much goes over they follow, so that a chain can; and go back if it did not
        moved = True
        while moved:
            moved = False
            for i in (i for i, node in enumerate(graph.nodes) if not node.weights):
                stays = Counter({found[i]: 0})  # what need not go over, by place
                for j, size in neighbours[i]:
                    stays[found[j]] += size
                needed = stays.total() if graph.nodes[i].op == "attention" else stays[found[i]]
                followed = {found[j] for j, _ in neighbours[i] if found[j] != by_layer[j]}
                for place in ({by_layer[i]} if back else followed) - {found[i]}:
                    as_much = stays[place] == stays[found[i]] and (back or found[i] == by_layer[i])
                    if stays[place] >= needed and (as_much or stays[place] > stays[found[i]]):
                        found[i], moved = place, True
    return found


def _neighbours(graph: Graph) -> list[list[tuple[int, int]]]:
    """For each node the numbers of those that make what it reads, or read what it makes, and how much for a token."""
    makers = {value.id: i for i, node in enumerate(graph.nodes) for value in node.outputs}
    found: list[list[tuple[int, int]]] = [[] for _ in graph.nodes]
    for i, node in enumerate(graph.nodes):
        for value in node.inputs:
            if value.id in makers:
                found[i].append((makers[value.id], value.repeat * value.cols))
                found[makers[value.id]].append((i, value.repeat * value.cols))
    return found


def _are_shares(split: tuple[float, ...]) -> bool:
    try:
        return all(share >= 0 for share in split) and 0 < sum(split) < math.inf
    except TypeError:
        return False


def number_of(device: str) -> int:
    """0 of "cuda:0", and of "cuda"."""
    return int(device.partition(":")[2] or 0)


def layers_of(graph: Graph) -> list[int]:
    """The layer of each node: -1 before the first one, and one more than the last behind it."""
    found = [int(match[1]) if (match := _LAYER.match(node.name)) else None for node in graph.nodes]
    numbers = [layer for layer in found if layer is not None]
    layers, behind = [], max(numbers, default=-1) + 1
    seen = False
    for layer in found:
        seen = seen or layer is not None
        layers.append(layer if layer is not None else behind if seen else -1)
    return layers


def placement_of(gpu_layers: int | str, split: Sequence[float], place: Sequence[str]) -> Placement | None:
    """A number of layers, "all" or "auto"; shares; and PATTERN=DEVICE. None if everything stays on the CPU.

    Raises InvalidRequest for what no placement is.
    """
    number = {"all": ALL, "auto": AUTO}.get(gpu_layers) if isinstance(gpu_layers, str) else gpu_layers
    is_number = isinstance(number, int) and not isinstance(number, bool)
    if not is_number or (not isinstance(gpu_layers, str) and gpu_layers < 0):
        raise InvalidRequest(f'gpu_layers={gpu_layers!r}: a number of layers, "all" or "auto" is wanted')
    assert number is not None
    wanted = Placement(number, tuple(split), tuple(map(parse_place, place)))
    if split and number == 0:
        raise InvalidRequest(
            f"tensor_split={wanted.split}: these are shares of layers on GPUs, and gpu_layers puts none there; "
            'gpu_layers="all" does'
        )
    return wanted if number or place else None


def parse_place(text: str) -> tuple[str, str]:
    """`PATTERN=DEVICE`, as the command has it."""
    pattern, found, device = text.rpartition("=")
    if not found or not pattern:
        raise InvalidRequest(f"--place {text}: PATTERN=DEVICE is wanted, for example 'ffn_.*_exps=cpu'")
    return pattern, device
