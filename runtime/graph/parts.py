"""A graph cut into parts that run one after the other, each where its weights are.

A part is a graph of its own. What it reads that others made it is given, what others read of it, it keeps.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import TypeVar

from .ir import Graph, Node, Value

Place = TypeVar("Place", bound=Hashable)


def cut(graph: Graph, places: Sequence[Place]) -> list[tuple[Place, Graph]]:
    """Neighbouring nodes of one place become a part; `places` has one for each node."""
    runs = [
        (place, [node for _, node in run])
        for place, run in groupby(zip(places, graph.nodes, strict=True), key=lambda pair: pair[0])
    ]
    return [(place, _part(graph, runs, i)) for i, (place, _) in enumerate(runs)]


def _part(graph: Graph, runs: Sequence[tuple[Place, Sequence[Node]]], index: int) -> Graph:
    nodes = runs[index][1]
    made = _values([value for node in nodes for value in node.outputs])
    read = _values([value for node in nodes for value in node.inputs])
    later = {value.id for _, others in runs[index + 1 :] for node in others for value in node.inputs}
    later.add(graph.logits.id)
    kept = tuple(value for value in made if value.id in later)
    layers = {node.attrs["layer"] for node in nodes if node.op == "attention"}
    return Graph(
        nodes=tuple(nodes),
        logits=kept[-1],
        state=tuple(spec for spec in graph.state if spec.layer in layers),
        given=tuple(value for value in read if value not in made),
        kept=kept,
    )


def _values(values: Sequence[Value]) -> list[Value]:
    """Each once, in order."""
    return list(dict.fromkeys(values))
