"""One function per op: what launches a node (see lower.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....formats.errors import UnsupportedError
from ...graph.ir import Node
from .kernels import elementwise, moe, norm, rope, rows
from .kernels.linear import FLOATS
from .lower import Lowering, Place, Run, count_of, elements
from .lower_attention import lower_attention, rotation, stores_rotated
from .lower_linear import lower_expert_linear, lower_linear, lower_linear_add, lower_linear_glu
from .now import Now
from .simt import THREADS, WARP, blocks

_F4, _I4 = np.float32, np.int32


def _embed(low: Lowering, node: Node) -> None:
    weight, out = node.weights["weight"], low.buffer(node.outputs[0])
    w, row_bytes, table = low.matrix(weight)
    kernel, factor = rows.embed(weight.type.name), _F4(node.attrs["scale"])
    shares = weight.cols if weight.type.name in FLOATS else weight.cols // 32
    chosen = getattr(low.inputs, node.attrs["source"])

    def bind(place: Place) -> Run:
        to = place(out, _F4)

        def run(now: Now) -> None:
            n = now.n_tokens
            launch = kernel[blocks(n), THREADS, now.stream]
            launch(w, row_bytes, table, shares, weight.cols, chosen, n, factor, to)

        return run

    low.add((), (out,), bind)


def _rms_norm(low: Lowering, node: Node) -> None:
    heads = node.attrs["heads"]
    if heads == 1 and low.reads_codes(node.outputs[0]):
        _norm_quantized(low, node, norm.rms_norm_quantized)
    else:
        _norm(low, node, norm.rms_norm, heads)


def _layer_norm(low: Lowering, node: Node) -> None:
    if low.reads_codes(node.outputs[0]):
        _norm_quantized(low, node, norm.layer_norm_quantized)
    else:
        _norm(low, node, norm.layer_norm)


def _parameters(low: Lowering, node: Node) -> tuple[Any, ...]:
    """Weight and bias of a norm, each with whether it is there; and eps."""
    given = [node.weights.get(role) for role in ("weight", "bias")]
    flagged = [argument for one in given for argument in (low.weights.vector(one), one is not None)]
    return *flagged, _F4(node.attrs["eps"])


def _norm(low: Lowering, node: Node, kernel: Any, heads: int = 1) -> None:
    x, out, count = low.buffer(node.inputs[0]), low.buffer(node.outputs[0]), count_of(node.inputs[0])
    parameters, cols = _parameters(low, node), node.inputs[0].cols // heads

    def bind(place: Place) -> Run:
        source, to = place(x, _F4), place(out, _F4)

        def run(now: Now) -> None:
            n = count(now) * heads
            kernel[blocks(n), THREADS, now.stream](source, *parameters, cols, n, to)

        return run

    low.add((x,), (out,), bind)


def _norm_quantized(low: Lowering, node: Node, kernel: Any) -> None:
    """As int8 for the products that follow, and as float32 as well if anything else does."""
    value, x = node.outputs[0], low.buffer(node.inputs[0])
    keeps, codes, count = low.reads_floats(value), low.codes(value), count_of(value)
    outs = [low.buffer(value)] if keeps else []
    parameters, none = _parameters(low, node), low.weights.none

    def bind(place: Place) -> Run:
        source, to = place(x, _F4), place(outs[0], _F4) if keeps else none
        made = place(codes[0], np.int8), place(codes[1], _F4), place(codes[2], _F4)

        def run(now: Now) -> None:
            n = count(now)
            kernel[blocks(n), THREADS, now.stream](source, *parameters, value.cols, n, to, keeps, *made)

        return run

    low.add((x,), (*outs, *codes), bind)


def _elementwise(kernel_of: Callable[[Node], Any], *attrs: str) -> Callable[[Lowering, Node], None]:
    def lower(low: Lowering, node: Node) -> None:
        inputs = tuple(low.buffer(value) for value in node.inputs)
        elements(low, node, kernel_of(node), inputs, *(_F4(node.attrs[name]) for name in attrs))

    return lower


def _take_rows(low: Lowering, node: Node) -> None:
    x, out, cols = low.buffer(node.inputs[0]), low.buffer(node.outputs[0]), node.inputs[0].cols

    def bind(place: Place) -> Run:
        source, to = place(x, _F4), place(out, _F4)

        def run(now: Now) -> None:
            n = now.n_outputs
            rows.take_rows[blocks(n), THREADS, now.stream](source, cols, low.inputs.outputs, n, to)

        return run

    low.add((x,), (out,), bind)


def _rope(low: Lowering, node: Node) -> None:
    if stores_rotated(low, node):
        return  # attention does it
    x, out = low.buffer(node.inputs[0]), low.buffer(node.outputs[0])
    inverse, mscale, n_rot, is_neox = rotation(low, node)
    n_head = node.attrs["n_head"]
    shape = n_head, node.inputs[0].cols // n_head, n_rot, is_neox

    def bind(place: Place) -> Run:
        source, to = place(x, _F4), place(out, _F4)

        def run(now: Now) -> None:
            n = now.n_tokens
            rope.rope[blocks(n), THREADS, now.stream](source, inverse, mscale, *shape, low.inputs.positions, n, to)

        return run

    low.add((x,), (out,), bind)


def _moe_route(low: Lowering, node: Node) -> None:
    a, x = node.attrs, node.inputs[0]
    if a["gating"] != "softmax":
        raise UnsupportedError(f"experts are routed by {a['gating']!r}; this version has softmax")
    logits, count = low.buffer(x), count_of(x)
    ids, weights = (low.buffer(value) for value in node.outputs)

    def bind(place: Place) -> Run:
        source, chosen, shares = place(logits, _F4), place(ids, _I4), place(weights, _F4)

        def run(now: Now) -> None:
            m = count(now)
            moe.moe_route[blocks(-(-m // WARP)), WARP, now.stream](
                source, x.cols, a["n_used"], a["normalize"], _F4(a["scale"]), m, chosen, shares
            )

        return run

    low.add((logits,), (ids, weights), bind)


def _expert_combine(low: Lowering, node: Node) -> None:
    y, weights = node.inputs
    parts, shares, out, count = low.buffer(y), low.buffer(weights), low.buffer(node.outputs[0]), count_of(weights)

    def bind(place: Place) -> Run:
        source, by, to = place(parts, _F4), place(shares, _F4), place(out, _F4)

        def run(now: Now) -> None:
            m = count(now)
            moe.expert_combine[blocks(-(-m * y.cols // THREADS)), THREADS, now.stream](
                source, by, weights.cols, y.cols, m, to
            )

        return run

    low.add((parts, shares), (out,), bind)


LOWER: dict[str, Callable[[Lowering, Node], None]] = {
    "embed": _embed,
    "rms_norm": _rms_norm,
    "layer_norm": _layer_norm,
    "linear": lower_linear,
    "linear_add": lower_linear_add,
    "linear_glu": lower_linear_glu,
    "add": _elementwise(lambda node: elementwise.add),
    "scale": _elementwise(lambda node: elementwise.scale, "factor"),
    "glu": _elementwise(lambda node: elementwise.glu(node.attrs["act"])),
    "activation": _elementwise(lambda node: elementwise.activation(node.attrs["act"])),
    "softcap": _elementwise(lambda node: elementwise.softcap, "cap"),
    "take_rows": _take_rows,
    "rope": _rope,
    "attention": lower_attention,
    "moe_route": _moe_route,
    "expert_linear": lower_expert_linear,
    "expert_combine": _expert_combine,
}
