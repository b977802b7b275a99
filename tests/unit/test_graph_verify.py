"""One broken graph per rule of the verifier; the message names the node."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.runtime.graph.ir import Graph, KVSpec, Node, Rows, Value, Weight
from halfbyte.runtime.graph.verify import GraphError, verify


def weight(name: str, *shape: int, type: GGMLType = GGMLType.F32) -> Weight:
    return Weight(name, type, shape, np.zeros((*shape[:-1], type.row_bytes(shape[-1])), np.uint8))


def node(op: str, name: str, inputs: tuple[Value, ...], out: Value, weights: Any = (), **attrs: Any) -> Node:
    return Node(op, name, inputs, (out,), MappingProxyType(dict(weights)), MappingProxyType(attrs))


def graph() -> Graph:
    """embed [5, 12] -> norm -> attention with itself -> take_rows -> linear [7, 12]."""
    x, h, a, y, z = (
        Value(i, n, rows, cols)
        for i, (n, rows, cols) in enumerate(
            [
                ("token_embd", Rows.TOKENS, 12),
                ("attn_norm", Rows.TOKENS, 12),
                ("attention", Rows.TOKENS, 12),
                ("take_rows", Rows.OUTPUTS, 12),
                ("output", Rows.OUTPUTS, 7),
            ]
        )
    )
    attention = {"layer": 0, "n_head": 3, "n_head_kv": 3, "key_dim": 4, "value_dim": 4, "scale": 0.5, "window": 6}
    nodes = (
        node("embed", "token_embd", (), x, {"weight": weight("token_embd.weight", 5, 12)}),
        node("rms_norm", "attn_norm", (x,), h, {"weight": weight("attn_norm.weight", 12)}, eps=1e-5),
        node("attention", "attention", (h, h, h), a, **attention),
        node("take_rows", "take_rows", (a,), y),
        node("linear", "output", (y,), z, {"weight": weight("output.weight", 7, 12)}),
    )
    return Graph(nodes, z, (KVSpec(0, 3, 4, 4, 6),))


def edited(index: int, **changes: Any) -> Graph:
    """The graph with one node changed; `attrs` and `weights` are merged."""
    g = graph()
    old = g.nodes[index]
    for field in ("attrs", "weights"):
        if field in changes:
            changes[field] = MappingProxyType({**getattr(old, field), **changes[field]})
    return replace(g, nodes=(*g.nodes[:index], replace(old, **changes), *g.nodes[index + 1 :]))


def without_weights(index: int) -> Graph:
    nodes = list(graph().nodes)
    nodes[index] = replace(nodes[index], weights=MappingProxyType({}))
    return replace(graph(), nodes=tuple(nodes))


def with_node(index: int, extra: Node) -> Graph:
    nodes = list(graph().nodes)
    return replace(graph(), nodes=(*nodes[:index], extra, *nodes[index:]))


def value(index: int) -> Value:
    return graph().nodes[index].outputs[0]


def test_a_legal_graph() -> None:
    verify(graph())


BROKEN: dict[str, tuple[Graph, str]] = {
    "unknown op": (edited(1, op="rmsnorm"), r"node 1 rmsnorm\(attn_norm\): there is no op 'rmsnorm'"),
    "weight length": (
        edited(1, weights={"weight": weight("attn_norm.weight", 40)}),
        r"node 1 rms_norm\(attn_norm\): weight has 40 elements, input last dim is 12",
    ),
    "too few inputs": (edited(2, inputs=(value(1),)), r"node 2 attention\(attention\): takes 3 inputs, not 1"),
    "unknown attribute": (edited(1, attrs={"epsilon": 1}), "has no attribute 'epsilon', only eps, heads"),
    "missing attribute": (
        with_node(1, node("scale", "s", (value(0),), Value(7, "s", Rows.TOKENS, 12))),
        r"node 1 scale\(s\): attribute 'factor' is missing",
    ),
    "wrong attribute": (edited(1, attrs={"eps": float("nan")}), "eps is nan, must be a finite number above 0"),
    "unknown weight": (edited(3, weights={"weight": weight("w", 3)}), "takes no weight 'weight', only none"),
    "missing weight": (without_weights(4), r"node 4 linear\(output\): weight is missing"),
    "heads": (edited(2, attrs={"n_head_kv": 2}), "3 heads cannot share 2 key/value heads evenly"),
    "matrix": (
        edited(4, weights={"weight": weight("w", 7, 16)}),
        "weight has rows of 16 elements, input last dim is 12",
    ),
    "declared output": (
        edited(4, outputs=(replace(value(4), cols=8),)),
        r"declares outputs f32\[outputs\*1, 8\], its inputs give f32\[outputs\*1, 7\]",
    ),
    "reads the future": (edited(1, inputs=(value(3),)), r"reads 'take_rows' \(id 3\) before any node makes it"),
    "reads a stranger": (edited(1, inputs=(replace(value(0), cols=13),)), "with another shape than it was made with"),
    "id taken": (edited(1, outputs=(replace(value(1), id=0),)), r"makes 'attn_norm' \(id 0\), an id that is taken"),
    "no codec": (
        edited(4, weights={"weight": weight("output.weight", 7, 12, type=GGMLType.I32)}),
        "weight 'output.weight' has type I32, which has no codec",
    ),
    "quantized norm": (
        edited(1, weights={"weight": weight("n", 32, type=GGMLType.Q8_0)}),
        "weight 'n' is a vector of type Q8_0, must be F32, F16 or BF16",
    ),
    "bytes": (
        edited(4, weights={"weight": replace(weight("w", 7, 12), data=np.zeros((7, 47), np.uint8))}),
        r"weight 'w' of shape \(7, 12\) has data uint8 \(7, 47\), must be uint8 \(7, 48\)",
    ),
    "partial block": (
        edited(4, weights={"weight": weight("w", 7, 12, type=GGMLType.Q8_0)}),
        "rows that are not whole blocks",
    ),
    "logits from nowhere": (
        replace(graph(), logits=replace(value(4), id=9)),
        r"logits 'output' \(id 9\) are made by no node",
    ),
    "logits of all tokens": (
        replace(graph(), logits=value(2)),
        "logits 'attention' must be f32 with one row per output",
    ),
    "state of another shape": (
        replace(graph(), state=(KVSpec(0, 3, 4, 4, 0),)),
        r"needs the state KVSpec\(.*window=6\)",
    ),
    "no state": (replace(graph(), state=()), "the graph has None"),
    "state twice": (replace(graph(), state=graph().state * 2), "two states belong to one layer"),
    "unused state": (
        replace(graph(), state=(*graph().state, KVSpec(1, 3, 4, 4, 6))),
        "state of layer 1 is used by no attention",
    ),
    "layer twice": (
        with_node(3, replace(graph().nodes[2], outputs=(replace(value(2), id=7),))),
        r"node 3 attention\(attention\): a second attention stores into layer 0",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule(rule: str) -> None:
    broken, message = BROKEN[rule]
    with pytest.raises(GraphError, match=message):
        verify(broken)


def test_all_problems_are_reported() -> None:
    broken = replace(edited(1, op="wobble"), state=())
    with pytest.raises(GraphError) as error:
        verify(broken)
    assert len(str(error.value).splitlines()) == 2
