"""Legality of a whole graph, one message per rule, each naming the node.

`verify` runs after every build and, in tests, after every rewrite. It assumes nothing about who made the graph.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...formats.errors import HalfbyteError
from ...formats.gguf.types import GGMLType
from ...formats.quants import CODECS
from ..ops import OPS, OpError, Shape
from .ir import Graph, KVSpec, Node, Rows, Value, Weight

VECTOR_TYPES = (GGMLType.F32, GGMLType.F16, GGMLType.BF16)  # norms and biases are never quantized


class GraphError(HalfbyteError):
    """A graph breaks a rule: a mistake in a model family or in a rewrite, not in the model file."""


def verify(graph: Graph) -> None:
    """Raise GraphError with every broken rule, one per line."""
    problems = list(find_problems(graph))
    if problems:
        raise GraphError("\n".join(problems))


def find_problems(graph: Graph) -> Iterator[str]:
    """Every broken rule, as `node 41 rms_norm(blk.3.attn_norm): weight has 4096 elements, input last dim is 2048`."""
    defined: dict[int, Value] = {}
    for index, node in enumerate(graph.nodes):
        for problem in (*_dataflow(node, defined), *_arguments(node), *_weights(node)):
            yield f"{describe(index, node)}: {problem}"
        defined.update({value.id: value for value in node.outputs})
    yield from _logits(graph.logits, defined)
    yield from _state(graph)


def describe(index: int, node: Node) -> str:
    """How messages name a node."""
    return f"node {index} {node.op}({node.name})"


def _dataflow(node: Node, defined: dict[int, Value]) -> Iterator[str]:
    for value in node.inputs:
        if value.id not in defined:
            yield f"reads {value.name!r} (id {value.id}) before any node makes it"
        elif defined[value.id] != value:
            yield f"reads {value.name!r} (id {value.id}) with another shape than it was made with"
    ids = [value.id for value in node.outputs]
    for value in node.outputs:
        if value.id in defined or ids.count(value.id) > 1:
            yield f"makes {value.name!r} (id {value.id}), an id that is taken"


def _arguments(node: Node) -> Iterator[str]:
    spec = OPS.get(node.op)
    if spec is None:
        yield f"there is no op {node.op!r}"
        return
    try:
        expected = spec.infer(node.inputs, node.weights, node.attrs)
    except OpError as error:
        yield str(error)
        return
    found = tuple(Shape(v.rows, v.cols, v.repeat, v.dtype) for v in node.outputs)
    if found != expected:
        yield f"declares outputs {_shapes(found)}, its inputs give {_shapes(expected)}"


def _weights(node: Node) -> Iterator[str]:
    for role, weight in node.weights.items():
        if weight.type not in CODECS:
            yield f"{role} {weight.name!r} has type {weight.type.name}, which has no codec"
        elif len(weight.shape) == 1 and weight.type not in VECTOR_TYPES:
            yield f"{role} {weight.name!r} is a vector of type {weight.type.name}, must be F32, F16 or BF16"
        else:
            yield from _bytes(role, weight)


def _bytes(role: str, weight: Weight) -> Iterator[str]:
    if min(weight.shape) < 1 or weight.cols % weight.type.block_size:
        yield f"{role} {weight.name!r} has shape {weight.shape}: empty, or rows that are not whole blocks"
        return
    expected = (*weight.shape[:-1], weight.type.row_bytes(weight.cols))
    if weight.data.dtype != np.uint8 or weight.data.shape != expected:
        found = f"{weight.data.dtype} {weight.data.shape}"
        yield f"{role} {weight.name!r} of shape {weight.shape} has data {found}, must be uint8 {expected}"


def _logits(logits: Value, defined: dict[int, Value]) -> Iterator[str]:
    if defined.get(logits.id) != logits:
        yield f"logits {logits.name!r} (id {logits.id}) are made by no node"
    if (logits.rows, logits.repeat, logits.dtype) != (Rows.OUTPUTS, 1, "f32"):
        yield f"logits {logits.name!r} must be f32 with one row per output"


def _state(graph: Graph) -> Iterator[str]:
    by_layer = {spec.layer: spec for spec in graph.state}
    if len(by_layer) != len(graph.state):
        yield "two states belong to one layer"
    seen: set[int] = set()
    for index, node in enumerate(graph.nodes):
        if node.op != "attention" or not {"layer", "n_head_kv", "key_dim", "value_dim"} <= set(node.attrs):
            continue
        a = node.attrs
        spec = KVSpec(a["layer"], a["n_head_kv"], a["key_dim"], a["value_dim"], a.get("window", 0))
        if by_layer.get(spec.layer) != spec:
            yield f"{describe(index, node)}: needs the state {spec}, the graph has {by_layer.get(spec.layer)}"
        if spec.layer in seen:
            yield f"{describe(index, node)}: a second attention stores into layer {spec.layer}"
        seen.add(spec.layer)
    for layer in sorted(set(by_layer) - seen):
        yield f"the state of layer {layer} is used by no attention"


def _shapes(shapes: tuple[Shape, ...]) -> str:
    return ", ".join(f"{s.dtype}[{s.rows.value}*{s.repeat}, {s.cols}]" for s in shapes)
