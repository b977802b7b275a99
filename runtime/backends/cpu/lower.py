"""From graph nodes to kernel calls: which kernel, with which arguments.

One function per op, in lower_ops.py. A product with a quantized weight first needs its input as int8; that is a call of
its own, made once per value however many products follow. Steps of few and of many tokens use different kernels, so a
graph is lowered twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ....formats.errors import UnsupportedError
from ...cache.kv import KV_TYPES, KVPool
from ...graph.ir import Graph, Node, Value, Weight
from ...graph.plan import Access, Buffer
from .args import PACKED_BYTES, ROW_SCRATCH_BYTES, packets_bytes, tiled
from .lower_ops import LOWER, rows_of
from .matrices import FLOATS, KERNEL_TYPES

# The roles of the matrices that a node multiplies with.
_MATRICES = {"linear_glu": ("gate", "up"), **dict.fromkeys(("linear", "linear_add", "expert_linear"), ("weight",))}


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
    pages: dict[int, Buffer] = field(default_factory=dict)
    _readers: dict[int, list[Node]] = field(default_factory=dict)

    def run(self) -> Lowering:
        if self.kv.kv_type not in KV_TYPES:
            known = " and ".join(map(str, KV_TYPES.values()))
            raise UnsupportedError(
                f"keys and values are stored as {self.kv.dtype}, the CPU kernels of this version read {known} only; "
                "make the pool with one of them, or use the reference backend"
            )
        for node in self.graph.nodes:
            for value in node.inputs:
                self._readers.setdefault(value.id, []).append(node)
        for node in self.graph.nodes:
            LOWER[node.op](self, node)
        return self

    @property
    def outside(self) -> dict[Buffer, Value]:
        """Buffers of the values that others read or write."""
        return {self.buffer(value): value for value in self.graph.outside}

    def is_exact(self) -> bool:
        """Whether no weight is quantized: then activations are not rounded either."""
        matrices = [node.weights[role] for node in self.graph.nodes for role in _MATRICES.get(node.op, ())]
        return all(weight.type.name in FLOATS for weight in matrices)

    # ---- pieces that the ops (lower_ops.py) are made of

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
        floats = self.buffer(value) if not all(wants_int8) or value in self.graph.outside else None
        return floats, self.packet_buffer(value) if any(wants_int8) else None

    def operand(self, node: Node, value: Value, weight: Weight, *, rows: bool = True) -> dict[str, Buffer]:
        """What a product of rows, or of panels, with this weight reads: one of the int8 forms, or the floats.

        Both kinds of rows are given as `x`.
        """
        if weight.type.name not in KERNEL_TYPES:
            raise UnsupportedError(f"{weight.name!r} is {weight.type.name}, which has no CPU kernel in this version")
        if rows:
            self.scratch_bytes = max(self.scratch_bytes, ROW_SCRATCH_BYTES)
        if weight.type.name in FLOATS:
            return {"x": self.buffer(value)}
        if rows:
            return {"x": self.packets(node, value)}
        return self.activations(node, value)


def _reads_int8(node: Node, value: Value) -> bool:
    """Whether a node reads a value as int8 only: as the factor of quantized matrices, and as nothing else."""
    if node.inputs[0] != value or value in node.inputs[1:]:
        return False
    types = [node.weights[role].type.name for role in _MATRICES.get(node.op, ())]
    return bool(types) and not set(types) & set(FLOATS)
