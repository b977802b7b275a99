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
from .lower_attention import lower_attention
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
    weight, heads, eps = node.weights.get("weight"), node.attrs["heads"], _F4(node.attrs["eps"])
    cols = node.inputs[0].cols // heads
    _rowwise(low, node, heads, norm.rms_norm, low.weights.vector(weight), weight is not None, eps, cols)


def _layer_norm(low: Lowering, node: Node) -> None:
    weight, bias = (low.weights.vector(node.weights[role]) for role in ("weight", "bias"))
    _rowwise(low, node, 1, norm.layer_norm, weight, bias, _F4(node.attrs["eps"]), node.inputs[0].cols)


def _rowwise(low: Lowering, node: Node, heads: int, kernel: Any, *args: Any) -> None:
    """kernel(x, *args, rows, out), a block for each row."""
    x, out, count = low.buffer(node.inputs[0]), low.buffer(node.outputs[0]), count_of(node.inputs[0])

    def bind(place: Place) -> Run:
        source, to = place(x, _F4), place(out, _F4)

        def run(now: Now) -> None:
            n = count(now) * heads
            kernel[blocks(n), THREADS, now.stream](source, *args, n, to)

        return run

    low.add((x,), (out,), bind)


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
    a, x, out = node.attrs, low.buffer(node.inputs[0]), low.buffer(node.outputs[0])
    frequencies = np.ascontiguousarray(a["inv_freq"], _F4)
    inverse = low.weights.array(frequencies.tobytes(), frequencies)
    shape = (_F4(a["mscale"]), a["n_head"], node.inputs[0].cols // a["n_head"], a["n_rot"], a["style"] == "neox")

    def bind(place: Place) -> Run:
        source, to = place(x, _F4), place(out, _F4)

        def run(now: Now) -> None:
            n = now.n_tokens
            rope.rope[blocks(n), THREADS, now.stream](source, inverse, *shape, low.inputs.positions, n, to)

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
