"""From graph nodes to kernel calls: which kernel, with which arguments.

One function per op. A product with a quantized weight first needs its input as int8; that is a call of its own, made
once per value however many products follow. Steps of few and of many tokens use different kernels, so a graph is
lowered twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....formats.errors import UnsupportedError
from ....formats.quants import decode
from ...cache.kv import KVPool
from ...graph.ir import Graph, Node, Rows, Value, Weight
from ...graph.plan import Access, Buffer
from .args import (
    INT8_ARRAYS,
    TILE_SCRATCH_BYTES,
    attention_kernel,
    gemm_scratch_bytes,
    rope_scratch_bytes,
    scratch_bytes,
)
from .features import target

# Which of the two kernels of a product does the work: linear_rows for up to `limit` rows, linear_gemm above.
_ALWAYS_ROWS, _ALWAYS_GEMM, _ROWS_FOR_ONE_OUTPUT_EACH = 1 << 40, 0, -1

_FLOATS = ("F32", "F16", "BF16")
KERNEL_TYPES = frozenset({
    *_FLOATS, "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
    "MXFP4",
})  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One kernel with its arguments: numbers, buffers, or arrays that stay where they are."""

    kernel: str
    args: dict[str, int | float | Buffer | NDArray[Any]]
    access: Access
    node: Node


@dataclass
class Lowering:
    """The calls of one graph for steps of up to `max_tokens` tokens."""

    graph: Graph
    kv: KVPool
    max_tokens: int
    prompt: bool
    calls: list[Call] = field(default_factory=list)
    scratch_bytes: int = 0  # private memory that each thread needs
    _buffers: dict[int, Buffer] = field(default_factory=dict)
    _quantized: dict[int, dict[str, Buffer]] = field(default_factory=dict)
    _brains: dict[tuple[int, bool], dict[str, Buffer]] = field(default_factory=dict)
    _pages: dict[int, Buffer] = field(default_factory=dict)

    def run(self) -> Lowering:
        for node in self.graph.nodes:
            _LOWER[node.op](self, node)
        return self

    @property
    def logits(self) -> Buffer:
        return self._buffers[self.graph.logits.id]

    # ---- pieces that the ops below are made of

    def buffer(self, value: Value) -> Buffer:
        """Where a value lives."""
        if value.id not in self._buffers:
            self._buffers[value.id] = Buffer(value.name, 4 * self.max_tokens * value.repeat * value.cols)
        return self._buffers[value.id]

    def add(self, kernel: str, node: Node, reads: tuple[Buffer, ...], writes: tuple[Buffer, ...], **args: Any) -> None:
        self.calls.append(Call(kernel, args, Access(reads, writes), node))

    def simple(self, kernel: str, node: Node, names: str, **args: Any) -> None:
        """A kernel whose inputs are the node's, under these argument names, and whose output is `out`."""
        inputs = [self.buffer(v) for v in node.inputs]
        out = self.buffer(node.outputs[0])
        named = dict(zip(names.split(), inputs, strict=True))
        self.add(kernel, node, tuple(inputs), (out,), **named, out=out, **args)

    def activations(self, node: Node, value: Value) -> dict[str, Buffer]:
        """The int8 form of a value."""
        if value.id not in self._quantized:
            rows = self.max_tokens * value.repeat
            groups = rows * value.cols // 32
            made = {name: Buffer(f"{value.name}.{name}", groups * n) for name, n in INT8_ARRAYS.items()}
            x = self.buffer(value)
            self.add("quantize", node, (x,), tuple(made.values()), x=x, **made, **rows_of(value))
            self._quantized[value.id] = made
        return self._quantized[value.id]

    def brain(self, node: Node, value: Value, *, exact: bool) -> dict[str, Buffer]:
        """A value as tiles of bfloat16; exact: with the low parts."""
        if (value.id, exact) not in self._brains:
            rows = -(-self.max_tokens * value.repeat // 16) * 16
            parts = ("high", "low") if exact else ("high",)
            made = {part: Buffer(f"{value.name}.{part}", 2 * rows * value.cols) for part in parts}
            x = self.buffer(value)
            kernel = "brain.exact" if exact else "brain.fast"
            self.add(kernel, node, (x,), tuple(made.values()), x=x, **made, **rows_of(value))
            self._brains[value.id, exact] = made
        return self._brains[value.id, exact]

    def operand(self, node: Node, value: Value, weight: Weight) -> dict[str, Buffer]:
        """What a product with this weight reads: int8 codes and scales, or the floats themselves."""
        if weight.type.name not in KERNEL_TYPES:
            raise UnsupportedError(f"{weight.name!r} is {weight.type.name}, which has no CPU kernel in this version")
        return {"x": self.buffer(value)} if weight.type.name in _FLOATS else self.activations(node, value)


def in_tiles(weight: Weight) -> bool:
    """Whether prompts are multiplied with this weight in tile registers. Float32 keeps all its bits: it is not."""
    return target().isa.tiles and weight.type.name in KERNEL_TYPES - {"F32"} and weight.cols % 32 == 0


def rows_of(value: Value) -> dict[str, int]:
    """The arguments by which a kernel computes its number of rows."""
    return {"cols": value.cols, "repeat": value.repeat, "on_outputs": int(value.rows is Rows.OUTPUTS)}


def vector(weight: Weight | None) -> NDArray[np.float32] | int:
    """A norm or bias as float32 (in place when it is stored so), 0 when there is none."""
    if weight is None:
        return 0
    if weight.type.name == "F32" and weight.data.flags.c_contiguous:
        return weight.data.view(np.float32)
    return decode(weight.data, weight.type)


def matrix(weight: Weight) -> dict[str, Any]:
    """The arguments that describe a weight matrix, which is read where the file is mapped."""
    row_bytes = weight.data.shape[-1]
    if not weight.data.flags.c_contiguous:
        raise AssertionError(f"{weight.name} is not contiguous")
    return {"w": weight.data, "row_bytes": row_bytes, "n": weight.n_rows}


# ---- one function per op


def _embed(low: Lowering, node: Node) -> None:
    weight, out = node.weights["weight"], low.buffer(node.outputs[0])
    low.add(
        f"embed.{weight.type.name}", node, (), (out,), **matrix(weight), out=out, cols=weight.cols,
        by_position=int(node.attrs["source"] == "positions"), factor=node.attrs["scale"],
    )  # fmt: skip


def _rms_norm(low: Lowering, node: Node) -> None:
    args = {name: node.attrs[name] for name in ("eps", "heads")}
    low.simple("rms_norm", node, "x", weight=vector(node.weights.get("weight")), **args, **rows_of(node.inputs[0]))


def _layer_norm(low: Lowering, node: Node) -> None:
    weights = {role: vector(node.weights.get(role)) for role in ("weight", "bias")}
    low.simple("layer_norm", node, "x", eps=node.attrs["eps"], **weights, **rows_of(node.inputs[0]))


def _linear(low: Lowering, node: Node) -> None:
    weight, x, out = node.weights["weight"], node.inputs[0], low.buffer(node.outputs[0])
    args = {**matrix(weight), "bias": vector(node.weights.get("bias")), "out": out, **rows_of(x)}

    def add(kernel: str, operand: dict[str, Buffer]) -> None:
        low.add(f"{kernel}.{weight.type.name}", node, tuple(operand.values()), (out,), **args, **operand, limit=limit)

    # Logits are wanted of the last token of each prompt, or of every token: only the step knows.
    either = low.prompt and x.rows is Rows.OUTPUTS
    limit = _ROWS_FOR_ONE_OUTPUT_EACH if either else _ALWAYS_GEMM if low.prompt else _ALWAYS_ROWS
    if either or not low.prompt:
        add("linear_rows", low.operand(node, x, weight))
    if low.prompt and in_tiles(weight):
        add("linear_tiles", low.brain(node, x, exact=weight.type.name in _FLOATS))
        low.scratch_bytes = max(low.scratch_bytes, TILE_SCRATCH_BYTES)
    elif low.prompt:
        add("linear_gemm", low.operand(node, x, weight))
        low.scratch_bytes = max(low.scratch_bytes, gemm_scratch_bytes(weight.cols))


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
    out = low.buffer(node.outputs[0])
    pages = low._pages.setdefault(layer, Buffer(f"kv.{layer}", 0))
    where = {"keys": low.kv.keys[layer], "values": low.kv.values[layer]}
    sizes = {name: a[name] for name in ("n_head_kv", "key_dim", "value_dim")}
    low.add("kv_store", node, (k, v), (pages,), k=k, v=v, **where, **sizes)
    low.add(
        attention_kernel(a["n_head"], a["n_head_kv"]), node, (q, pages), (out,), q=q, out=out, **where, **sizes,
        n_head=a["n_head"], scale=a["scale"], window=a["window"], softcap=a["softcap"],
    )  # fmt: skip
    needed = scratch_bytes(a["n_head"], a["n_head_kv"], a["key_dim"], a["value_dim"])
    low.scratch_bytes = max(low.scratch_bytes, needed)


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


_LOWER: dict[str, Callable[[Lowering, Node], None]] = {
    "embed": _embed,
    "rms_norm": _rms_norm,
    "layer_norm": _layer_norm,
    "linear": _linear,
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
