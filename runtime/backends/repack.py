"""Weights that kernels read in another form than the file has: made once, when a model is loaded.

Blocks of more than 64 weights, quantized absmaxes, and four-bit codes that were stored as Q8_0 become blocks of 64 (or
32) with float16 absmaxes, in memory of their own. All other weights stay where the file is mapped.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np

from ...formats.gguf.kinds import KINDS
from ...formats.gguf.types import GGMLType
from ...formats.quants import codec_for
from ...formats.quants.codec import Bytes
from ...formats.quants.reversible import from_q8_0
from ..graph.ir import Graph, Node, Weight

PIECE_WEIGHTS = 1 << 22  # repacked at once


def repacked(graph: Graph) -> Graph:
    """The graph with all weights in forms that there are kernels for, where there is such a form."""
    done: dict[int, Weight] = {}

    def ready(weight: Weight) -> Weight:
        if id(weight) not in done:
            done[id(weight)] = repack(weight)
        return done[id(weight)]

    def changed(node: Node) -> Node:
        weights = {role: ready(weight) for role, weight in node.weights.items()}
        if all(weights[role] is weight for role, weight in node.weights.items()):
            return node
        return replace(node, weights=MappingProxyType(weights))

    return replace(graph, nodes=tuple(changed(node) for node in graph.nodes))


def repack(weight: Weight) -> Weight:
    """The weight in the form that kernels read; itself if it is in one already, or in none that can become one."""
    if weight.made_of is not None:
        return _from_q8_0(weight, weight.made_of)
    type_ = kernel_type(weight.type)
    if type_ is weight.type:
        return weight
    rows = weight.data.reshape(-1, weight.data.shape[-1])
    made = np.empty((len(rows), type_.row_bytes(weight.cols)), np.uint8)
    step = max(1, PIECE_WEIGHTS // weight.cols)
    for lo in range(0, len(rows), step):
        made[lo : lo + step] = _smaller_blocks(rows[lo : lo + step], weight.type, type_)
    return replace(weight, type=type_, data=made.reshape(*weight.data.shape[:-1], -1))


def kernel_type(type_: GGMLType) -> GGMLType:
    """What kernels read instead of this type: blocks of at most 64, absmaxes as float16."""
    kind = KINDS.get(type_)
    if kind is None:
        return type_
    first = GGMLType.NF4_32 if kind.codes == "nf4" else GGMLType.FP4_32
    return GGMLType(first + (kind.block > 32))


def _smaller_blocks(rows: Bytes, before: GGMLType, after: GGMLType) -> Bytes:
    """Blocks cut into several with one absmax. What float16 cannot hold becomes infinite, as its weights would."""
    blocks = np.ascontiguousarray(rows).reshape(-1).view(codec_for(before).block)
    parts = before.block_size // after.block_size
    made = np.empty((len(blocks), parts), codec_for(after).block)
    with np.errstate(over="ignore"):
        made["d"] = blocks["d"].astype(np.float16)[:, None]
    made["qs"] = blocks["qs"].reshape(len(blocks), parts, -1)
    return made.view(np.uint8).reshape(len(rows), -1)


def _from_q8_0(weight: Weight, type_: GGMLType) -> Weight:
    rows = weight.data.reshape(-1, weight.data.shape[-1])
    made = np.empty((len(rows), type_.row_bytes(weight.cols)), np.uint8)
    step = max(1, PIECE_WEIGHTS // weight.cols)
    for lo in range(0, len(rows), step):
        part = from_q8_0(rows[lo : lo + step], type_)
        if part is None:
            return weight  # another program has changed it: Q8_0 like any other
        made[lo : lo + step] = part
    return replace(weight, type=type_, data=made.reshape(*weight.data.shape[:-1], -1), made_of=None)
