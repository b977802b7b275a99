"""A graph cut into parts that run one after the other, each where its weights are.

A part is a graph of its own. What it reads that others made it is given, what others read of it, it keeps. Places that
hold values do not hand them over to themselves: what one part made, or was given, is there for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Generic, TypeVar

from .ir import Graph, Node, Value

Place = TypeVar("Place", bound=Hashable)


def cut(
    graph: Graph, places: Sequence[Place], holds: Callable[[Place], bool] = lambda place: False
) -> list[tuple[Place, Graph]]:
    """Neighbouring nodes of one place become a part; `places` has one for each node. `holds`: does it hold values?"""
    runs = [
        _Run(place, [node for _, node in run])
        for place, run in groupby(zip(places, graph.nodes, strict=True), key=lambda pair: pair[0])
    ]
    return [(run.place, _part(graph, runs, i, holds(run.place))) for i, run in enumerate(runs)]


@dataclass(frozen=True)
class _Run(Generic[Place]):
    """Neighbouring nodes of one place."""

    place: Place
    nodes: Sequence[Node]

    @cached_property
    def made(self) -> dict[Value, None]:
        """Each once, in order; likewise `read`."""
        return dict.fromkeys(value for node in self.nodes for value in node.outputs)

    @cached_property
    def read(self) -> dict[Value, None]:
        return dict.fromkeys(value for node in self.nodes for value in node.inputs)


def _part(graph: Graph, runs: Sequence[_Run[Place]], index: int, holds: bool) -> Graph:
    run = runs[index]
    made, read = run.made, run.read
    # What parts of this place had before, and will want; and what others will want.
    here = [other for other in runs[:index] if holds and other.place == run.place]
    before = {value for other in here for value in (*other.made, *other.read)}
    behind = {holds and other.place == run.place: set[Value]() for other in runs[index + 1 :]}
    for other in runs[index + 1 :]:
        behind[holds and other.place == run.place] |= set(other.read)
    wanted = behind.get(False, set()) | {graph.logits}
    kept = tuple(value for value in made if value in wanted)
    held = [value for value in read if value in before]
    held += [value for value in dict.fromkeys((*made, *read)) if value in behind.get(True, ()) and value not in before]
    layers = {node.attrs["layer"] for node in run.nodes if node.op == "attention"}
    return Graph(
        nodes=tuple(run.nodes),
        logits=(kept or tuple(made))[-1],
        state=tuple(spec for spec in graph.state if spec.layer in layers),
        given=tuple(value for value in read if value not in made and value not in before),
        kept=kept,
        held=tuple(held),
    )
