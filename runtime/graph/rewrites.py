"""Rewrites: functions from a graph to a graph that computes the same with fewer operations.

A family says what is computed; a backend whose kernels do more at once asks for the rewrites that its kernels profit
from, in a fixed order (`rewrite`). The reference backend runs graphs as the families wrote them, and can run rewritten
ones: every op made here is defined in ops/fused.py by the ops it replaces.

A rewrite replaces a value only where nobody else reads it, and never the logits or what a part keeps. It leaves alone
what it does not know.

What they gain, with the int8 forms that backends/cpu/lower.py lets kernels write, is mostly waiting: fewer calls, and
fewer barriers between them.

Queries, keys and values stay three products. The plan makes the int8 form of their input once and lets them run side by
side between two barriers, whatever their types; a single call for all their rows was no faster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from types import MappingProxyType

from .ir import Graph, Node, Value, Weight

Rewrite = Callable[[Graph], Graph]
_Changes = dict[int, Node | None]  # see _key

# Ops that treat each row alone and have one input: taking rows before them gives what taking rows after them gives.
_ROWWISE = frozenset({"linear", "rms_norm", "layer_norm", "scale", "activation", "softcap"})


def take_rows_early(graph: Graph) -> Graph:
    """f(x)[rows] becomes f(x[rows]): in the last block only rows whose logits are wanted go on, so only they need the
    projection of the attention. Of a prompt of 512 tokens that is one row.
    """
    swapped = _swap_one_take(graph)
    while swapped is not None:
        graph, swapped = swapped, _swap_one_take(swapped)
    return graph


def _swap_one_take(graph: Graph) -> Graph | None:
    found = _Uses(graph)
    for take in graph.nodes:
        if take.op != "take_rows":
            continue
        before = found.only_maker(take.inputs[0], _ROWWISE)
        if before is None:
            continue
        (x,) = before.inputs
        rows = replace(take.outputs[0], id=found.free_id, name=f"{x.name}.rows", cols=x.cols)
        taken = replace(take, inputs=(x,), outputs=(rows,))
        after = replace(before, inputs=(rows,), outputs=take.outputs)
        return _replaced(graph, {_key(before): taken, _key(take): after})
    return None


def fuse_gated_mlp(graph: Graph) -> Graph:
    """glu(linear(x, gate), linear(x, up)) becomes linear_glu(x): gate, up and activation in one pass.

    For one token that is a barrier and two calls less in each block, and another barrier where the result is wanted as
    int8.
    """
    found = _Uses(graph)
    changes: _Changes = {}
    for node in graph.nodes:
        if node.op != "glu":
            continue
        gate, up = (found.only_maker(value, {"linear"}) for value in node.inputs)
        if gate is None or up is None or gate is up or gate.inputs != up.inputs:
            continue
        weights = {**_renamed(gate, "gate"), **_renamed(up, "up")}
        changes |= {_key(gate): None, _key(up): None}
        changes[_key(node)] = replace(node, op="linear_glu", inputs=gate.inputs, weights=MappingProxyType(weights))
    return _replaced(graph, changes)


def fuse_residual(graph: Graph) -> Graph:
    """x + linear(h) becomes linear_add(h, x): the product adds as it stores.

    Two barriers and two calls less in each block, for prompts too.
    """
    found = _Uses(graph)
    changes: _Changes = {}
    for node in graph.nodes:
        if node.op != "add":
            continue
        for residual, update in (node.inputs, node.inputs[::-1]):
            product = found.only_maker(update, {"linear"})
            if product is not None:
                inputs = (*product.inputs, residual)
                changes[_key(product)] = None
                changes[_key(node)] = replace(product, op="linear_add", inputs=inputs, outputs=node.outputs)
                break
    return _replaced(graph, changes)


FUSIONS: tuple[Rewrite, ...] = (take_rows_early, fuse_gated_mlp, fuse_residual)


def rewrite(graph: Graph, rewrites: Sequence[Rewrite] = FUSIONS) -> Graph:
    """The graph after the given rewrites, one after the other."""
    for function in rewrites:
        graph = function(graph)
    return graph


class _Uses:
    """Who makes and who reads each value of a graph."""

    def __init__(self, graph: Graph) -> None:
        self._makers = {value.id: node for node in graph.nodes for value in node.outputs}
        self._reads = Counter(value.id for node in graph.nodes for value in node.inputs)
        self._reads.update(value.id for value in dict.fromkeys((*graph.results, *graph.held)))
        self.free_id = 1 + max([*self._makers, *(value.id for value in graph.outside)])

    def only_maker(self, value: Value, ops: Collection[str]) -> Node | None:
        """The node that makes a value, if it is one of these ops and the value is read exactly once."""
        maker = self._makers.get(value.id)
        return maker if maker is not None and maker.op in ops and self._reads[value.id] == 1 else None


def _renamed(product: Node, role: str) -> dict[str, Weight]:
    """Weights of a product under the roles `role` and `role`_bias."""
    names = {"weight": role, "bias": f"{role}_bias"}
    return {names[name]: weight for name, weight in product.weights.items()}


def _key(node: Node) -> int:
    """What identifies a node within its graph."""
    return node.outputs[0].id


def _replaced(graph: Graph, changes: _Changes) -> Graph:
    """The graph with some nodes replaced, or left out where None takes their place."""
    nodes = (changes.get(_key(node), node) for node in graph.nodes)
    return replace(graph, nodes=tuple(node for node in nodes if node is not None))
