"""Builds graphs: one verb per op, weights looked up by their GGUF name and checked against the hyperparameters.

g = GraphBuilder(file.tensors, file.path)
x = g.embed("token_embd", n_vocab, n_embd)
with g.block(3):
    h = g.rms_norm(x, "attn_norm", eps)          # blk.3.attn_norm.weight, which must have n_embd elements
    q = g.linear(h, "attn_q", n_head * key_dim)  # blk.3.attn_q.weight, and blk.3.attn_q.bias if the file has one
...
g.output(logits)
graph = g.finish()                               # verified, and every tensor of the file is in use
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from ...formats.errors import ModelFileError, UnsupportedError
from ...formats.gguf.tensors import GGUFTensor
from ...formats.quants import codec_for
from ..ops import OPS, OpError
from .ir import Graph, KVSpec, Node, Value, Weight
from .verify import VECTOR_TYPES, GraphError, verify


class GraphBuilder:
    """Collects nodes. `n_params` counts the elements of the tensors in use; a tied tensor counts once."""

    def __init__(self, tensors: Mapping[str, GGUFTensor], path: str | os.PathLike[str] | None = None) -> None:
        self._tensors, self.path = tensors, path
        self._used: dict[str, Weight] = {}
        self._nodes: list[Node] = []
        self._state: list[KVSpec] = []
        self._n_values, self._prefix, self._layer = 0, "", -1
        self._logits: Value | None = None

    @contextmanager
    def block(self, layer: int) -> Iterator[None]:
        """Inside, names begin with `blk.{layer}.`"""
        self._prefix, self._layer = f"blk.{layer}.", layer
        try:
            yield
        finally:
            self._prefix, self._layer = "", -1

    # Weights

    def has(self, name: str) -> bool:
        """Whether the file has this tensor of the current block."""
        return self._prefix + name in self._tensors

    def weight(self, name: str, *shape: int) -> Weight:
        """A tensor of the current block, which must have exactly this shape; a matrix of one row may be a vector.

        Raises ModelFileError when it is missing or has another shape, UnsupportedError when its type has no codec.
        """
        full = self._prefix + name
        tensor = self._tensors.get(full)
        if tensor is None:
            raise ModelFileError("tensor is missing", path=self.path, field=full, allowed=f"shape {shape}")
        if tensor.shape not in (shape, shape[1:] if shape[0] == 1 else shape):
            raise ModelFileError(
                "tensor has the wrong shape", path=self.path, field=full, got=tensor.shape, allowed=str(shape)
            )
        if full not in self._used:
            weight = self._checked(tensor)
            is_row = tensor.shape != shape
            self._used[full] = replace(weight, shape=shape, data=weight.data[None]) if is_row else weight
        return self._used[full]

    def _checked(self, tensor: GGUFTensor) -> Weight:
        if len(tensor.shape) == 1 and tensor.type not in VECTOR_TYPES:
            allowed = "F32, F16, BF16"
            raise ModelFileError(
                "a norm or bias cannot be of this type",
                path=self.path,
                field=tensor.name,
                got=tensor.type.name,
                allowed=allowed,
            )
        try:
            codec_for(tensor.type)
        except UnsupportedError as error:
            raise UnsupportedError(f"{self.path}: {tensor.name!r}: {error}") from None
        return Weight(tensor.name, tensor.type, tensor.shape, tensor.data, tensor.made_of)

    @property
    def n_params(self) -> int:
        return sum(int(np.prod(weight.shape, dtype=object)) for weight in self._used.values())

    # Verbs, named as the ops

    def embed(self, stem: str, n: int, cols: int, *, source: str = "tokens", scale: float = 1.0) -> Value:
        weights = {"weight": self.weight(f"{stem}.weight", n, cols)}
        return self._add("embed", stem, (), weights, source=source, scale=scale)

    def rms_norm(self, x: Value, stem: str, eps: float, *, heads: int = 1) -> Value:
        weights = {"weight": self.weight(f"{stem}.weight", x.cols // heads)}
        return self._add("rms_norm", stem, (x,), weights, eps=eps, heads=heads)

    def layer_norm(self, x: Value, stem: str, eps: float) -> Value:
        weights = {role: self.weight(f"{stem}.{role}", x.cols) for role in ("weight", "bias")}
        return self._add("layer_norm", stem, (x,), weights, eps=eps)

    def linear(self, x: Value, stem: str, n: int) -> Value:
        """x times `stem`.weight[n, x.cols], plus `stem`.bias if the file has one."""
        (out,) = self.split_linear(x, stem, (n,))
        return out

    def split_linear(self, x: Value, stem: str, sizes: Sequence[int]) -> list[Value]:
        """Several products with consecutive rows of one packed tensor, which is not copied."""
        weight = self.weight(f"{stem}.weight", sum(sizes), x.cols)
        bias = self.weight(f"{stem}.bias", sum(sizes)) if self.has(f"{stem}.bias") else None
        outs = []
        for lo, hi in pairwise(accumulate(sizes, initial=0)):
            whole = len(sizes) == 1
            part = {"weight": weight if whole else weight.rows(lo, hi)}
            if bias is not None:
                part["bias"] = bias if whole else _elements(bias, lo, hi)
            outs.append(self._add("linear", stem if whole else f"{stem}[{lo}:{hi}]", (x,), part))
        return outs

    def add(self, x: Value, y: Value) -> Value:
        return self._add("add", "add", (x, y))

    def scale(self, x: Value, factor: float) -> Value:
        return self._add("scale", "scale", (x,), factor=factor)

    def rope(self, x: Value, name: str, **attrs: Any) -> Value:
        """Attributes as in ops/rope.py."""
        return self._add("rope", name, (x,), **attrs)

    def attention(self, q: Value, k: Value, v: Value, **attrs: Any) -> Value:
        """Attributes as in ops/attention.py, without `layer`: it is the current block. Adds the state of the layer."""
        out = self._add("attention", "attention", (q, k, v), layer=self._layer, **attrs)
        shape = {name: attrs[name] for name in ("n_head_kv", "key_dim", "value_dim")}
        self._state.append(KVSpec(self._layer, **shape, window=attrs.get("window", 0)))
        return out

    def glu(self, gate: Value, up: Value, act: str) -> Value:
        return self._add("glu", "glu", (gate, up), act=act)

    def activation(self, x: Value, act: str) -> Value:
        return self._add("activation", "activation", (x,), act=act)

    def softcap(self, x: Value, cap: float) -> Value:
        return self._add("softcap", "softcap", (x,), cap=cap)

    def take_rows(self, x: Value) -> Value:
        return self._add("take_rows", "take_rows", (x,))

    def moe_route(self, logits: Value, **attrs: Any) -> tuple[Value, Value]:
        """Attributes as in ops/moe.py. Returns expert ids and their weights."""
        ids, weights = self._node("moe_route", "moe_route", (logits,), {}, attrs).outputs
        return ids, weights

    def expert_linear(self, x: Value, ids: Value, stem: str, n_expert: int, n: int) -> Value:
        weights = {"weight": self.weight(f"{stem}.weight", n_expert, n, x.cols)}
        if self.has(f"{stem}.bias"):
            weights["bias"] = self.weight(f"{stem}.bias", n_expert, n)
        return self._add("expert_linear", stem, (x, ids), weights)

    def expert_combine(self, y: Value, weights: Value) -> Value:
        return self._add("expert_combine", "expert_combine", (y, weights))

    # The end

    def output(self, logits: Value) -> None:
        """Say which value holds the logits."""
        self._logits = logits

    def finish(self) -> Graph:
        """The verified graph. UnsupportedError if the file has tensors that nothing uses."""
        assert self._logits is not None, "a family must call output()"
        unused = [name for name in self._tensors if name not in self._used]
        if unused:
            listed = ", ".join(unused[:10]) + (f" and {len(unused) - 10} more" if len(unused) > 10 else "")
            raise UnsupportedError(
                f"{self.path}: this version has no use for the tensors {listed}. "
                "Running the model without them could give wrong answers; update Halfbyte"
            )
        graph = Graph(tuple(self._nodes), self._logits, tuple(self._state))
        verify(graph)
        return graph

    def _add(
        self, op: str, name: str, inputs: tuple[Value, ...], weights: Mapping[str, Weight] | None = None, **attrs: Any
    ) -> Value:
        (out,) = self._node(op, name, inputs, weights or {}, attrs).outputs
        return out

    def _node(
        self, op: str, name: str, inputs: tuple[Value, ...], weights: Mapping[str, Weight], attrs: Mapping[str, Any]
    ) -> Node:
        full = self._prefix + name
        try:
            shapes = OPS[op].infer(inputs, weights, attrs)
            attrs = OPS[op].complete(attrs)
        except OpError as error:
            raise GraphError(f"node {len(self._nodes)} {op}({full}): {error}") from None
        names = [full] if len(shapes) == 1 else [f"{full}.{i}" for i in range(len(shapes))]
        first = self._n_values
        outputs = tuple(Value(first + i, n, *shape) for i, (n, shape) in enumerate(zip(names, shapes, strict=True)))
        self._n_values += len(outputs)
        node = Node(op, full, inputs, outputs, MappingProxyType(dict(weights)), MappingProxyType(dict(attrs)))
        self._nodes.append(node)
        return node


def _elements(vector: Weight, lo: int, hi: int) -> Weight:
    """Elements [lo, hi) of a vector, without a copy. Vectors are never quantized, so an element is a whole block."""
    size = vector.type.block_bytes
    return Weight(f"{vector.name}[{lo}:{hi}]", vector.type, (hi - lo,), vector.data[lo * size : hi * size])
