"""How near a speed is to what the machine can do at most: work per token, and shares of the limits.

Decode reads every weight once for each token, so that its limit is the memory. A prompt reads them once for all of its
tokens, so that its limit is multiplication. What attention reads and multiplies is not counted: shares are a little too
low, and lower the longer the context.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from halfbyte.runtime.graph.ir import Graph, Node, Rows

PRODUCTS = ("linear", "expert_linear")


@dataclass(frozen=True)
class Work:
    """What a model does at least.

    weight_bytes  read for one token with logits
    token_macs    multiply-adds for each token
    output_macs   multiply-adds for each token whose logits are wanted, beyond those
    """

    weight_bytes: int
    token_macs: int
    output_macs: int

    def decode_share(self, tokens_per_second: float, bandwidth: float) -> float:
        """Of the bytes per second that memory gives, 1 is all."""
        return tokens_per_second * self.weight_bytes / bandwidth

    def prompt_share(self, tokens_per_second: float, n_tokens: int, peak: float) -> float:
        """Of the multiply-adds per second, for a prompt of `n_tokens` with logits for the last one; 1 is all."""
        return tokens_per_second * (self.token_macs + self.output_macs / n_tokens) / peak


@dataclass(frozen=True)
class Unit:
    """What multiplies a prompt: "tiles", "pairs", "int8" or "float32", and how many times for one product."""

    name: str
    times: int = 1


def unit(kernels: Collection[str]) -> Unit:
    """The one that these kernels of a plan use."""
    if "linear_tiles.F16" in kernels or "linear_tiles.BF16" in kernels:
        # High and low parts of activations; F16 weights have both parts too, and the low ones are not multiplied.
        return Unit("tiles", 3 if "linear_tiles.F16" in kernels else 2)
    if any(name.startswith("linear_tiles.") for name in kernels):
        return Unit("tiles")
    if any(name.startswith("linear_pairs.") for name in kernels):
        return Unit("pairs")
    return Unit("int8" if "quantize" in kernels else "float32")


def work(graph: Graph) -> Work:
    """Count the products of a graph."""
    n_bytes, macs = 0, {Rows.TOKENS: 0, Rows.OUTPUTS: 0}
    for node in graph.nodes:
        if node.op in PRODUCTS:
            used, elements, size = _used(node)
            n_bytes += used * size
            macs[node.outputs[0].rows] += used * elements
    return Work(n_bytes, macs[Rows.TOKENS], macs[Rows.OUTPUTS])


def _used(node: Node) -> tuple[int, int, int]:
    """How many matrices a token needs (more than one of a mixture of experts), and the elements and bytes of one."""
    weight = node.weights["weight"]
    experts = weight.shape[0] if node.op == "expert_linear" else 1
    return node.outputs[0].repeat, math.prod(weight.shape) // experts, weight.data.nbytes // experts
