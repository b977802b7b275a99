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
    GATED_SCRATCH_BYTES,
    GROUP_SCRATCH_BYTES,
    PACKED_BYTES,
    ROW_SCRATCH_BYTES,
    SPLIT_TOKENS,
    TILE_SCRATCH_BYTES,
    decode_kernel,
    gemm_scratch_bytes,
    packets_bytes,
    partials_bytes,
    prompt_attention_bytes,
    rope_scratch_bytes,
    scratch_bytes,
    tiled,
)
from .features import target

# Which of the two kernels of a product does the work: linear_rows for up to `limit` rows, another above.
_ALWAYS_ROWS, _ALWAYS_GEMM, _ROWS_FOR_ONE_OUTPUT_EACH = 1 << 40, 0, -1

_FLOATS = ("F32", "F16", "BF16")
KERNEL_TYPES = frozenset({
    *_FLOATS, "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
    "MXFP4",
})  # fmt: skip
KV_DTYPE = np.dtype(np.float16)  # the kernels read pages of keys and values as nothing else


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
    _packets: dict[int, Buffer] = field(default_factory=dict)
    _pairs: dict[int, dict[str, Buffer]] = field(default_factory=dict)
    _brains: dict[tuple[int, bool], dict[str, Buffer]] = field(default_factory=dict)
    _pages: dict[int, Buffer] = field(default_factory=dict)
    _readers: dict[int, list[Node]] = field(default_factory=dict)

    def run(self) -> Lowering:
        if self.kv.dtype != KV_DTYPE:
            raise UnsupportedError(
                f"keys and values are stored as {self.kv.dtype}, the CPU kernels of this version read {KV_DTYPE} only; "
                "make the pool with that type, or use the reference backend"
            )
        for node in self.graph.nodes:
            for value in node.inputs:
                self._readers.setdefault(value.id, []).append(node)
        for node in self.graph.nodes:
            _LOWER[node.op](self, node)
        return self

    @property
    def logits(self) -> Buffer:
        return self._buffers[self.graph.logits.id]

    def is_exact(self) -> bool:
        """Whether no weight is quantized: then activations are not rounded either."""
        matrices = [node.weights[role] for node in self.graph.nodes for role in _MATRICES.get(node.op, ())]
        return all(weight.type.name in _FLOATS for weight in matrices)

    # ---- pieces that the ops below are made of

    def buffer(self, value: Value) -> Buffer:
        """Where a value lives."""
        if value.id not in self._buffers:
            self._buffers[value.id] = Buffer(value.name, self.bytes_of(value))
        return self._buffers[value.id]

    def bytes_of(self, value: Value) -> int:
        """Size of a value in the largest step."""
        return 4 * self.max_tokens * value.repeat * value.cols

    def add(self, kernel: str, node: Node, reads: tuple[Buffer, ...], writes: tuple[Buffer, ...], **args: Any) -> None:
        self.calls.append(Call(kernel, args, Access(reads, writes), node))

    def simple(self, kernel: str, node: Node, names: str, **args: Any) -> None:
        """A kernel whose inputs are the node's, under these argument names, and whose output is `out`."""
        inputs = [self.buffer(v) for v in node.inputs]
        out = self.buffer(node.outputs[0])
        named = dict(zip(names.split(), inputs, strict=True))
        self.add(kernel, node, tuple(inputs), (out,), **named, out=out, **args)

    def activations(self, node: Node, value: Value) -> dict[str, Buffer]:
        """The int8 form of a value that products of panels read."""
        if value.id not in self._quantized:
            self._quantized[value.id] = self._packed(node, value, "quantize")
        return self._quantized[value.id]

    def pairs(self, node: Node, value: Value) -> dict[str, Buffer]:
        """The bfloat16 form of a value that products of panels read."""
        if value.id not in self._pairs:
            self._pairs[value.id] = self._packed(node, value, "pack_pairs")
        return self._pairs[value.id]

    def _packed(self, node: Node, value: Value, kernel: str) -> dict[str, Buffer]:
        """A value in tiles of tokens, made by this kernel."""
        x, size = self.buffer(value), PACKED_BYTES * tiled(self.max_tokens * value.repeat) * value.cols // 32
        packed = Buffer(f"{value.name}.{kernel}", size)
        self.add(kernel, node, (x,), (packed,), x=x, packed=packed, **rows_of(value))
        return {"packed": packed}

    def packets(self, node: Node, value: Value) -> Buffer:
        """The int8 form of a value that products of rows read."""
        if value.id not in self._packets:
            x, packets = self.buffer(value), self.packet_buffer(value)
            self.add("quantize_packets", node, (x,), (packets,), x=x, packets=packets, **rows_of(value))
        return self._packets[value.id]

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

    def packet_buffer(self, value: Value) -> Buffer:
        """Where the packets of a value live: whoever asks must fill it."""
        size = packets_bytes(self.max_tokens * value.repeat, value.cols)
        self._packets[value.id] = Buffer(f"{value.name}.packets", size)
        return self._packets[value.id]

    def forms(self, value: Value) -> tuple[Buffer | None, Buffer | None]:
        """Where a kernel that can write both forms of a value is to write: as float32, and as packets of int8 (None:
        nobody reads it so).
        """
        wants_int8 = [_reads_int8(node, value) for node in self._readers.get(value.id, [])]
        floats = self.buffer(value) if not all(wants_int8) or value == self.graph.logits else None
        return floats, self.packet_buffer(value) if any(wants_int8) else None

    def operand(self, node: Node, value: Value, weight: Weight, *, rows: bool = True) -> dict[str, Buffer]:
        """What a product of rows, or of panels, with this weight reads: one of the int8 forms, or the floats.

        Both kinds of rows are given as `x`.
        """
        if weight.type.name not in KERNEL_TYPES:
            raise UnsupportedError(f"{weight.name!r} is {weight.type.name}, which has no CPU kernel in this version")
        if rows:
            self.scratch_bytes = max(self.scratch_bytes, ROW_SCRATCH_BYTES)
        if weight.type.name in _FLOATS:
            return {"x": self.buffer(value)}
        if rows:
            return {"x": self.packets(node, value)}
        return self.activations(node, value)


def in_tiles(weight: Weight) -> bool:
    """Whether prompts are multiplied with this weight in tile registers. Float32 keeps all its bits: it is not."""
    return target().isa.tiles and weight.type.name in KERNEL_TYPES - {"F32"} and weight.cols % 32 == 0


def in_pairs(weight: Weight) -> bool:
    """Whether prompts are multiplied with this weight as pairs of bfloat16."""
    return target().isa.pairs and weight.type.name in ("F16", "BF16") and weight.cols % 32 == 0


_MATRICES = {"linear_glu": ("gate", "up"), **dict.fromkeys(("linear", "linear_add", "expert_linear"), ("weight",))}


def _reads_int8(node: Node, value: Value) -> bool:
    """Whether a node reads a value as int8 only: as the factor of quantized matrices, and as nothing else."""
    if node.inputs[0] != value or value in node.inputs[1:]:
        return False
    types = [node.weights[role].type.name for role in _MATRICES.get(node.op, ())]
    return bool(types) and not set(types) & set(_FLOATS)


def rows_of(value: Value) -> dict[str, int]:
    """The arguments by which a kernel computes its number of rows."""
    return {"cols": value.cols, "repeat": value.repeat, "on_outputs": int(value.rows is Rows.OUTPUTS)}


def present(*buffers: Buffer | None) -> tuple[Buffer, ...]:
    return tuple(buffer for buffer in buffers if buffer is not None)


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
        add("linear_tiles", low.brain(node, x, exact=weight.type.name in _FLOATS))
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
    pages = low._pages.setdefault(layer, Buffer(f"kv.{layer}", 0))
    where = {"keys": low.kv.keys[layer], "values": low.kv.values[layer]}
    sizes = {name: a[name] for name in ("n_head_kv", "key_dim", "value_dim")}
    partials, counters = None, 0 if low.prompt else np.zeros(SPLIT_TOKENS * a["n_head_kv"], np.int64)
    low.add("kv_store", node, (k, v), (pages,), k=k, v=v, **where, **sizes, counters=counters)
    blocks = low.prompt and target().isa.tiles and a["key_dim"] % 32 == 0 and a["value_dim"] % 16 == 0
    kernel = "attention"
    needed = scratch_bytes(a["n_head"], a["n_head_kv"], a["key_dim"], a["value_dim"])
    if blocks:
        kernel = "attention_blocks.exact" if low.is_exact() else "attention_blocks.fast"
        needed = prompt_attention_bytes(a["key_dim"], a["value_dim"])
    elif not low.prompt:
        kernel = decode_kernel(a["n_head"], a["n_head_kv"], a["value_dim"])
        partials = Buffer(f"{node.name}.partials", partials_bytes(a["n_head"], a["n_head_kv"], a["value_dim"]))
    low.add(
        kernel, node, (q, pages), present(packets, out, partials), q=q, out=out or 0, packets=packets or 0,
        partials=partials or 0, counters=counters, **where, **sizes, n_head=a["n_head"], scale=a["scale"],
        window=a["window"], softcap=a["softcap"],
    )  # fmt: skip
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
