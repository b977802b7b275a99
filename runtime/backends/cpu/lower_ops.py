"""One function per op: the kernel calls that a node becomes (see lower.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ....formats.errors import UnsupportedError
from ...graph.ir import Node, Rows, Value, Weight
from ...graph.plan import Buffer
from ...ops.embed import SOURCES
from .args import (
    GATED_SCRATCH_BYTES,
    GROUP_SCRATCH_BYTES,
    SPLIT_TOKENS,
    TILE_SCRATCH_BYTES,
    decode_kernel,
    gemm_scratch_bytes,
    partials_bytes,
    prompt_attention_bytes,
    rope_scratch_bytes,
    scratch_bytes,
)
from .features import target
from .matrices import FLOATS, in_pairs, in_tiles, matrix, vector

if TYPE_CHECKING:
    from .lower import Lowering

# Which of the two kernels of a product does the work: linear_rows for up to `limit` rows, another above.
_ALWAYS_ROWS, _ALWAYS_GEMM, _ROWS_FOR_ONE_OUTPUT_EACH = 1 << 40, 0, -1


def rows_of(value: Value) -> dict[str, int]:
    """The arguments by which a kernel computes its number of rows."""
    return {"cols": value.cols, "repeat": value.repeat, "on_outputs": int(value.rows is Rows.OUTPUTS)}


def present(*buffers: Buffer | None) -> tuple[Buffer, ...]:
    return tuple(buffer for buffer in buffers if buffer is not None)


def _embed(low: Lowering, node: Node) -> None:
    weight, out = node.weights["weight"], low.buffer(node.outputs[0])
    low.add(
        f"embed.{weight.type.name}", node, (), (out,), **matrix(weight), out=out, cols=weight.cols,
        source=SOURCES.index(node.attrs["source"]), factor=node.attrs["scale"],
    )  # fmt: skip


def _rms_norm(low: Lowering, node: Node) -> None:
    if not low.prompt and node.attrs["heads"] == 1:
        floats, packets = low.forms(node.outputs[0])
        if packets is not None:
            _rms_norm_quantize(low, node, floats, packets)
            return
    args = {name: node.attrs[name] for name in ("eps", "heads")}
    low.simple("rms_norm", node, "x", weight=vector(node.weights.get("weight")), **args, **rows_of(node.inputs[0]))


def _rms_norm_quantize(low: Lowering, node: Node, floats: Buffer | None, packets: Buffer) -> None:
    x = low.buffer(node.inputs[0])
    low.add(
        "rms_norm_quantize", node, (x,), present(packets, floats), x=x, weight=vector(node.weights.get("weight")),
        out=floats or 0, packets=packets, eps=node.attrs["eps"], **rows_of(node.inputs[0]),
    )  # fmt: skip
    low.scratch_bytes = max(low.scratch_bytes, GROUP_SCRATCH_BYTES)


def _layer_norm(low: Lowering, node: Node) -> None:
    weights = {role: vector(node.weights.get(role)) for role in ("weight", "bias")}
    low.simple("layer_norm", node, "x", eps=node.attrs["eps"], **weights, **rows_of(node.inputs[0]))


def _linear(low: Lowering, node: Node) -> None:
    weights = node.weights
    _product(low, node, weights["weight"], weights.get("bias"), low.buffer(node.outputs[0]))


def _linear_add(low: Lowering, node: Node) -> None:
    out, residual, weights = low.buffer(node.outputs[0]), low.buffer(node.inputs[1]), node.weights
    _product(low, node, weights["weight"], weights.get("bias"), out, residual)


def _product(
    low: Lowering, node: Node, weight: Weight, bias: Weight | None, out: Buffer, residual: Buffer | None = None
) -> None:
    """out = residual + (the node's first input times weight + bias)"""
    x = node.inputs[0]
    args = {**matrix(weight), "bias": vector(bias), "residual": residual or 0, "out": out, **rows_of(x)}

    def add(kernel: str, operand: dict[str, Buffer]) -> None:
        reads = (*operand.values(), *([] if residual is None else [residual]))
        low.add(f"{kernel}.{weight.type.name}", node, reads, (out,), **args, **operand, limit=limit)

    # Logits are wanted of the last token of each prompt, or of every token: only the step knows.
    either = low.prompt and x.rows is Rows.OUTPUTS
    limit = _ROWS_FOR_ONE_OUTPUT_EACH if either else _ALWAYS_GEMM if low.prompt else _ALWAYS_ROWS
    if either or not low.prompt:
        add("linear_rows", low.operand(node, x, weight))
    if low.prompt and in_tiles(weight):
        add("linear_tiles", low.brain(node, x, exact=weight.type.name in FLOATS))
        low.scratch_bytes = max(low.scratch_bytes, TILE_SCRATCH_BYTES)
    elif low.prompt:
        in_panels = low.operand(node, x, weight, rows=False) if not in_pairs(weight) else low.pairs(node, x)
        add("linear_pairs" if in_pairs(weight) else "linear_gemm", in_panels)
        low.scratch_bytes = max(low.scratch_bytes, gemm_scratch_bytes(weight.cols))


def _linear_glu(low: Lowering, node: Node) -> None:
    """For prompts the parts are written and read again: next to the products that costs nothing."""
    gate, up, act = node.weights["gate"], node.weights["up"], node.attrs["act"]
    if not low.prompt and gate.type is up.type:
        _linear_glu_rows(low, node)
        return
    value = node.outputs[0]
    parts = []
    for role, weight in (("gate", gate), ("up", up)):
        part = Buffer(f"{node.name}.{role}", low.bytes_of(value))
        _product(low, node, weight, node.weights.get(f"{role}_bias"), part)
        parts.append(part)
    out = low.buffer(value)
    low.add(f"glu.{act}", node, tuple(parts), (out,), gate=parts[0], up=parts[1], out=out, **rows_of(value))


def _linear_glu_rows(low: Lowering, node: Node) -> None:
    gate, up, x = node.weights["gate"], node.weights["up"], node.inputs[0]
    operand = low.operand(node, x, gate)
    floats, packets = low.forms(node.outputs[0])
    biases = {role: vector(node.weights.get(role)) for role in ("gate_bias", "up_bias")}
    shape = matrix(gate)
    low.add(
        f"linear_glu.{gate.type.name}.{node.attrs['act']}", node, tuple(operand.values()),
        present(packets, floats), gate=shape.pop("w"), up=matrix(up)["w"], **shape, **biases, out=floats or 0,
        packets=packets or 0, **operand, **rows_of(x),
    )  # fmt: skip
    low.scratch_bytes = max(low.scratch_bytes, GATED_SCRATCH_BYTES)


def _elementwise(names: str, *attrs: str) -> Callable[[Lowering, Node], None]:
    def lower(low: Lowering, node: Node) -> None:
        kernel = f"{node.op}.{node.attrs['act']}" if "act" in node.attrs else node.op
        args = {name: node.attrs[name] for name in attrs}
        low.simple(kernel, node, names, **args, **rows_of(node.inputs[0]))

    return lower


def _take_rows(low: Lowering, node: Node) -> None:
    low.simple("take_rows", node, "x", cols=node.inputs[0].cols)


def _rope(low: Lowering, node: Node) -> None:
    a = node.attrs
    low.scratch_bytes = max(low.scratch_bytes, rope_scratch_bytes(a["n_rot"]))
    low.simple(
        "rope", node, "x", inv_freq=np.ascontiguousarray(a["inv_freq"], np.float32), mscale=a["mscale"],
        n_head=a["n_head"], head_dim=node.inputs[0].cols // a["n_head"], n_rot=a["n_rot"],
        neox=int(a["style"] == "neox"),
    )  # fmt: skip


def _attention(low: Lowering, node: Node) -> None:
    a, layer = node.attrs, node.attrs["layer"]
    q, k, v = (low.buffer(value) for value in node.inputs)
    as_int8 = not low.prompt and a["value_dim"] % 32 == 0
    out, packets = low.forms(node.outputs[0]) if as_int8 else (low.buffer(node.outputs[0]), None)
    pages = low.pages.setdefault(layer, Buffer(f"kv.{layer}", 0))
    where = {"keys": low.kv.keys[layer], "values": low.kv.values[layer]}
    sizes = {name: a[name] for name in ("n_head_kv", "key_dim", "value_dim")}
    partials, counters = None, 0 if low.prompt else np.zeros(SPLIT_TOKENS * a["n_head_kv"], np.int64)
    low.add(f"kv_store.{low.kv.kv_type}", node, (k, v), (pages,), k=k, v=v, **where, **sizes, counters=counters)
    kernel = f"attention.{low.kv.kv_type}"
    needed = scratch_bytes(a["n_head"], a["n_head_kv"], a["key_dim"], a["value_dim"])
    if low.prompt and _in_blocks(low, node):
        kernel = "attention_blocks.exact" if low.is_exact() else "attention_blocks.fast"
        needed = prompt_attention_bytes(a["key_dim"], a["value_dim"])
    elif not low.prompt:
        kernel = decode_kernel(a["n_head"], a["n_head_kv"], a["value_dim"], low.kv.kv_type)
        partials = Buffer(f"{node.name}.partials", partials_bytes(a["n_head"], a["n_head_kv"], a["value_dim"]))
    low.add(
        kernel, node, (q, pages), present(packets, out, partials), q=q, out=out or 0, packets=packets or 0,
        partials=partials or 0, counters=counters, **where, **sizes, n_head=a["n_head"], scale=a["scale"],
        window=a["window"], softcap=a["softcap"], whole=int(not a["causal"]),
    )  # fmt: skip
    low.scratch_bytes = max(low.scratch_bytes, needed)


def _in_blocks(low: Lowering, node: Node) -> bool:
    """Whether tile registers do the attention of prompts; float32 pages would lose bits in them."""
    a = node.attrs
    fits = low.kv.kv_type == "f16" and a["key_dim"] % 32 == 0 and a["value_dim"] % 16 == 0
    return target().isa.tiles and bool(a["causal"]) and fits


def _moe_route(low: Lowering, node: Node) -> None:
    a, logits = node.attrs, low.buffer(node.inputs[0])
    if a["gating"] != "softmax":
        raise UnsupportedError(f"experts are routed by {a['gating']!r}; this version has softmax")
    ids, weights = (low.buffer(value) for value in node.outputs)
    low.add(
        "moe_route", node, (logits,), (ids, weights), logits=logits, ids=ids, weights=weights,
        n_expert=node.inputs[0].cols, n_used=a["n_used"], normalize=int(a["normalize"]), factor=a["scale"],
        on_outputs=int(node.inputs[0].rows is Rows.OUTPUTS),
    )  # fmt: skip


def _expert_linear(low: Lowering, node: Node) -> None:
    x, ids = node.inputs
    weight, out, ids_at = node.weights["weight"], low.buffer(node.outputs[0]), low.buffer(ids)
    operand = low.operand(node, x, weight)
    low.add(
        f"expert_rows.{weight.type.name}", node, (*operand.values(), ids_at), (out,), **matrix(weight),
        n_expert=weight.shape[0], bias=vector(node.weights.get("bias")), out=out, ids=ids_at, n_used=ids.cols,
        shared=int(x.repeat == 1), **operand, cols=x.cols, on_outputs=int(x.rows is Rows.OUTPUTS),
    )  # fmt: skip


def _expert_combine(low: Lowering, node: Node) -> None:
    y, weights = node.inputs
    low.simple(
        "expert_combine", node, "y weights", n_used=weights.cols, cols=y.cols, on_outputs=int(y.rows is Rows.OUTPUTS)
    )


LOWER: dict[str, Callable[[Lowering, Node], None]] = {
    "embed": _embed,
    "rms_norm": _rms_norm,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "linear_add": _linear_add,
    "linear_glu": _linear_glu,
    "add": _elementwise("x y"),
    "scale": _elementwise("x", "factor"),
    "glu": _elementwise("gate up"),
    "activation": _elementwise("x"),
    "softcap": _elementwise("x", "cap"),
    "take_rows": _take_rows,
    "rope": _rope,
    "attention": _attention,
    "moe_route": _moe_route,
    "expert_linear": _expert_linear,
    "expert_combine": _expert_combine,
}
