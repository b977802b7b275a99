"""From graph nodes to launches: which kernel, on which arrays, with which grid.

One function per op, in lower_ops.py. Each makes a `Call`: what it reads and writes, and what launches it, once the
buffers have places. A product with a quantized weight needs its input as int8. Norms and attention write it themselves
where such a product follows; for other values it is a call of its own, made once for all products that follow.

Launches cost time: what one can do for several nodes is lowered with the first of them, and the others are `done`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....formats.errors import UnsupportedError
from ...graph.ir import Graph, Node, Value, Weight
from ...graph.plan import Access, Buffer
from ..base import rows_in
from .allocate import Array
from .cublas import CuBLAS
from .kernels.linear import FLOATS
from .memory import Inputs, Pages, Weights
from .now import Now
from .simt import THREADS, blocks
from .weights import UNPACK, table_of

KERNEL_TYPES = frozenset({*FLOATS, *UNPACK})
PRODUCTS = frozenset({"linear", "linear_add", "linear_glu", "expert_linear"})
Run = Callable[[Now], None]
Place = Callable[[Buffer, Any], Array]  # where a buffer is, as elements of a type


@dataclass(frozen=True)
class Call:
    """One op: `bind` gets arrays for its buffers, and gives what launches it."""

    access: Access
    bind: Callable[[Place], Run]


@dataclass(frozen=True)
class Operand:
    """The activations of a product as its kernels take them: codes, scales and sums, or the floats three times."""

    buffers: tuple[Buffer, ...]
    types: tuple[Any, ...]
    shares: int  # groups of 32, or columns


@dataclass
class Lowering:
    """The calls of one graph for steps of up to `max_tokens` tokens, of prompts or of tokens just generated."""

    graph: Graph
    pages: Pages
    weights: Weights
    inputs: Inputs
    max_tokens: int
    prompt: bool
    has_tensor_cores: bool = False
    blas: CuBLAS | None = None  # for prompts
    calls: list[Call] = field(default_factory=list)
    _buffers: dict[int, Buffer] = field(default_factory=dict)
    _quantized: dict[int, tuple[Buffer, ...]] = field(default_factory=dict)
    brains: dict[int, Buffer] = field(default_factory=dict)  # values as bfloat16
    layers: dict[int, Buffer] = field(default_factory=dict)  # stand for the pages of each
    done: set[int] = field(default_factory=set)  # first outputs of nodes that were lowered with others

    def __post_init__(self) -> None:
        self._makers = {value.id: node for node in self.graph.nodes for value in node.outputs}
        self._readers: dict[int, list[Node]] = {}
        for node in self.graph.nodes:
            for value in node.inputs:
                self._readers.setdefault(value.id, []).append(node)
        self._outside = {value.id for value in self.graph.outside}

    def run(self) -> Lowering:
        from .lower_ops import LOWER

        for node in self.graph.nodes:
            if node.outputs[0].id not in self.done:
                LOWER[node.op](self, node)
        return self

    def maker(self, value: Value) -> Node | None:
        """The node of this graph that makes a value."""
        return self._makers.get(value.id)

    def readers(self, value: Value) -> list[Node]:
        """The nodes of this graph that read a value."""
        return self._readers.get(value.id, [])

    def is_own(self, value: Value) -> bool:
        """Whether a value lives between nodes of this graph, and nobody else reads it."""
        return value.id not in self._outside

    def reads_codes(self, value: Value) -> bool:
        """Whether whoever makes the value is to write it as int8; before cuBLAS that is seen when a step comes."""
        return self.blas is None and any(_takes_codes(node, value) for node in self.readers(value))

    def reads_floats(self, value: Value) -> bool:
        """Whether anything takes it as float32."""
        if self.blas is not None or not self.is_own(value):
            return True
        return not all(_takes_codes(node, value) for node in self.readers(value))

    def buffer(self, value: Value) -> Buffer:
        """Where a value lives."""
        if value.id not in self._buffers:
            self._buffers[value.id] = Buffer(value.name, 4 * self.max_tokens * value.repeat * value.cols)
        return self._buffers[value.id]

    def add(self, reads: tuple[Buffer, ...], writes: tuple[Buffer, ...], bind: Callable[[Place], Run]) -> None:
        self.calls.append(Call(Access(reads, writes), bind))

    def operand(self, value: Value, weight: Weight) -> Operand:
        """What a product with this weight reads."""
        if weight.type.name not in KERNEL_TYPES:
            raise UnsupportedError(f"{weight.name!r} is {weight.type.name}, which has no CUDA kernel in this version")
        if weight.type.name in FLOATS:
            x = self.buffer(value)
            return Operand((x, x, x), (np.float32,) * 3, value.cols)
        if value.id not in self._quantized:
            from .lower_cublas import codes_until
            from .lower_linear import quantize

            x, made = self.buffer(value), self.codes(value)
            self.add((x,), made, quantize(value, x, made, codes_until(self, value)))
        return Operand(self._quantized[value.id], (np.int32, np.float32, np.float32), value.cols // 32)

    def codes(self, value: Value) -> tuple[Buffer, ...]:
        """Where a value will be as int8, for what makes it so: codes, scales and sums."""
        rows, groups = self.max_tokens * value.repeat, value.cols // 32
        parts = {"codes": 32, "scale": 4, "sums": 8}  # bytes for each group
        made = tuple(Buffer(f"{value.name}.{name}", size * rows * groups) for name, size in parts.items())
        self._quantized[value.id] = made
        return made

    def matrix(self, weight: Weight) -> tuple[Array, int, Array]:
        """A weight's bytes, the bytes of a row, and the points of its grid."""
        name = weight.type.name
        return self.weights.matrix(weight), weight.data.shape[-1], self.weights.array(name, table_of(name))


def _takes_codes(node: Node, value: Value) -> bool:
    """Whether a node reads a value as int8, and not as float32."""
    if node.op not in PRODUCTS or value in node.inputs[1:]:
        return False
    matrices = [weight for role, weight in node.weights.items() if not role.endswith("bias")]
    return all(weight.type.name not in FLOATS for weight in matrices)


def count_of(value: Value) -> Callable[[Now], int]:
    """How many rows a value has in a step."""
    return lambda now: rows_in(value, now.n_tokens, now.n_outputs)


def elements(low: Lowering, node: Node, kernel: Any, inputs: tuple[Buffer, ...], *args: Any) -> None:
    """kernel(*inputs, *args, elements, out), a thread for each element of the output."""
    value = node.outputs[0]
    out, count = low.buffer(value), count_of(value)

    def bind(place: Place) -> Run:
        sources, to = [place(buffer, np.float32) for buffer in inputs], place(out, np.float32)

        def run(now: Now) -> None:
            n = count(now) * value.cols
            kernel[blocks(-(-n // THREADS)), THREADS, now.stream](*sources, *args, n, to)

        return run

    low.add(inputs, (out,), bind)
