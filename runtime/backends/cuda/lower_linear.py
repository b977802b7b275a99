"""Launches of products with weights (see lower.py): for few rows, for many, gated, and with experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...graph.ir import Node, Rows, Value, Weight
from ...graph.plan import Buffer
from .allocate import Array
from .kernels import elementwise, fragments, linear, tensor_floats, tensor_tiles
from .kernels import quantize as quantizing
from .kernels.linear import FLOATS
from .kernels.tiles import ACROSS, DOWN, ROWS, TOKENS, tiles
from .lower import Lowering, Operand, Place, Run, count_of, elements
from .lower_cublas import dense
from .now import Now
from .package import SIMULATED
from .simt import WARP, WARPS, blocks

TOGETHER = 3  # weights that one launch multiplies with
SEVERAL = (1, 2, 4, 8)  # rows of activations that a product takes at once
FEW = 0 if SIMULATED else SEVERAL[-1]  # of a prompt, that are no work for tiles
MOST_ACROSS = (1 << 16) - 1  # blocks of a grid in its second direction
_F4, _I4 = np.float32, np.int32


def quantize(value: Value, x: Buffer, made: tuple[Buffer, ...], until: int) -> Callable[[Place], Run]:
    """Groups of 32 of a value to int8, in steps in which it has fewer than `until` rows."""
    count, groups = count_of(value), value.cols // 32

    def bind(place: Place) -> Run:
        source, codes, scale, sums = place(x, _F4), place(made[0], np.int8), place(made[1], _F4), place(made[2], _F4)

        def run(now: Now) -> None:
            rows = count(now)
            n = rows * groups
            if rows < until:
                quantizing.quantize[blocks(-(-n // WARPS)), (WARP, WARPS), now.stream](
                    source, codes, scale, sums, groups, n
                )

        return run

    return bind


def lower_linear(low: Lowering, node: Node) -> None:
    beside = _beside(low, node)
    if len(beside) > 1:
        _products_together(low, beside)
    else:
        _product(low, node, node.weights["weight"], node.weights.get("bias"), low.buffer(node.outputs[0]))


def _beside(low: Lowering, node: Node) -> list[Node]:
    """Products of generated tokens with weights of one type for the same input: one launch makes up to three."""
    if low.prompt:
        return [node]
    type_ = node.weights["weight"].type
    alike = [
        other
        for other in low.readers(node.inputs[0])
        if other.op == "linear" and other.outputs[0].id not in low.done and other.weights["weight"].type is type_
    ]
    return alike[:TOGETHER]


def _products_together(low: Lowering, nodes: list[Node]) -> None:
    low.done.update(node.outputs[0].id for node in nodes)
    x, first = nodes[0].inputs[0], nodes[0].weights["weight"]
    name, operand, count, none = first.type.name, low.operand(x, first), count_of(x), low.weights.none
    outs = [low.buffer(node.outputs[0]) for node in nodes]
    _, row_bytes, table = low.matrix(first)
    parts = []
    for node in nodes:
        weight, bias = node.weights["weight"], node.weights.get("bias")
        parts.append((low.matrix(weight)[0], weight.n_rows, low.weights.vector(bias), bias is not None))
    total = sum(n for _, n, _, _ in parts)
    absent = (low.matrix(first)[0], 0, none, False, none)

    def bind(place: Place) -> Run:
        arrays = _arrays(place, operand)
        given = [argument for part, out in zip(parts, outs, strict=True) for argument in (*part, place(out, _F4))]
        given += absent * (TOGETHER - len(parts))

        def run(now: Now) -> None:
            m = count(now)
            if m == 0:
                return
            several = at_once(m)
            grid = blocks(-(-total // (linear.ROWS * WARPS))), -(-m // several)
            kernel = linear.together(name, several)[grid, (WARP, WARPS), now.stream]
            kernel(*given, row_bytes, table, operand.shares, *arrays, m)

        return run

    low.add(operand.buffers, tuple(outs), bind)


def lower_linear_add(low: Lowering, node: Node) -> None:
    out, residual = low.buffer(node.outputs[0]), low.buffer(node.inputs[1])
    _product(low, node, node.weights["weight"], node.weights.get("bias"), out, residual)


def _product(
    low: Lowering, node: Node, weight: Weight, bias: Weight | None, out: Buffer, residual: Buffer | None = None
) -> None:
    """out = residual + (the node's first input times weight + bias)"""
    x, name, n = node.inputs[0], weight.type.name, weight.n_rows
    operand, count, on_outputs = low.operand(x, weight), count_of(x), x.rows is Rows.OUTPUTS
    w, row_bytes, table = low.matrix(weight)
    offset, none = low.weights.vector(bias), low.weights.none
    by_blas = dense(low, x, weight, bias, out, residual)
    reads = (*operand.buffers, *(by_blas.reads if by_blas else ()), *([] if residual is None else [residual]))

    def bind(place: Place) -> Run:
        codes, scale, sums = _arrays(place, operand)
        before, to = none if residual is None else place(residual, _F4), place(out, _F4)
        multiply, least = (by_blas.bind(place), by_blas.least) if by_blas else (None, 0)

        def run(now: Now) -> None:
            m = count(now)
            if m == 0:
                return
            if multiply is not None and m >= least:
                multiply(now, m)
                return
            # Logits are wanted of the last token of each prompt, or of every token.
            few = not low.prompt or m <= FEW or (on_outputs and m <= now.n_sequences)
            kernel = _few(name, m, n, now) if few else _many(name, m, n, now, low.has_tensor_cores)
            kernel(
                w, row_bytes, table, n, operand.shares, codes, scale, sums, m, offset, bias is not None, before,
                residual is not None, to,
            )  # fmt: skip

        return run

    low.add(reads, (out,), bind)


def _arrays(place: Place, operand: Operand) -> tuple[Array, ...]:
    return tuple(place(buffer, type_) for buffer, type_ in zip(operand.buffers, operand.types, strict=True))


def at_once(m: int) -> int:
    """Rows of activations that one launch's warps take: m, or as many as they can."""
    return next((several for several in SEVERAL if several >= m), SEVERAL[-1])


def _few(name: str, m: int, n: int, now: Now) -> Any:
    several = at_once(m)
    grid = blocks(-(-n // (linear.ROWS * WARPS))), -(-m // several)
    return linear.rows(name, several)[grid, (WARP, WARPS), now.stream]


def _many(name: str, m: int, n: int, now: Now, has_tensor_cores: bool) -> Any:
    if has_tensor_cores and (name not in FLOATS or name in tensor_floats.TYPES):
        kernel = tensor_floats.tensor_floats(name) if name in FLOATS else tensor_tiles.tensor_tiles(name)
        return kernel[(-(-n // fragments.ROWS), -(-m // fragments.TOKENS)), (WARP, fragments.WARPS), now.stream]
    return tiles(name)[(-(-n // ROWS), -(-m // TOKENS)), (ACROSS, DOWN), now.stream]


def lower_linear_glu(low: Lowering, node: Node) -> None:
    """One launch for generated tokens, if both weights have one type; for prompts two products, and then the rest."""
    gate, up, act, value = node.weights["gate"], node.weights["up"], node.attrs["act"], node.outputs[0]
    if not low.prompt and gate.type is up.type:
        _gated_rows(low, node)
        return
    parts = []
    for role, weight in (("gate", gate), ("up", up)):
        part = Buffer(f"{node.name}.{role}", 4 * low.max_tokens * value.repeat * value.cols)
        _product(low, node, weight, node.weights.get(f"{role}_bias"), part)
        parts.append(part)
    elements(low, node, elementwise.glu(act), tuple(parts))


def _gated_rows(low: Lowering, node: Node) -> None:
    x, gate, up = node.inputs[0], node.weights["gate"], node.weights["up"]
    name, n, operand, count = gate.type.name, gate.n_rows, low.operand(x, gate), count_of(x)
    (left, row_bytes, table), (right, _, _) = low.matrix(gate), low.matrix(up)
    biases = [node.weights.get(f"{role}_bias") for role in ("gate", "up")]
    offsets = [argument for bias in biases for argument in (low.weights.vector(bias), bias is not None)]
    out = low.buffer(node.outputs[0])

    def bind(place: Place) -> Run:
        codes, scale, sums = _arrays(place, operand)
        to = place(out, _F4)

        def run(now: Now) -> None:
            m = count(now)
            if m == 0:
                return
            several = at_once(m)
            grid = blocks(-(-n // WARPS)), -(-m // several)
            kernel = linear.gated(name, several, node.attrs["act"])[grid, (WARP, WARPS), now.stream]
            kernel(left, right, row_bytes, table, n, operand.shares, codes, scale, sums, m, *offsets, to)

        return run

    low.add(operand.buffers, (out,), bind)


def lower_expert_linear(low: Lowering, node: Node) -> None:
    x, ids = node.inputs
    weight, bias, count = node.weights["weight"], node.weights.get("bias"), count_of(ids)
    operand, out, chosen = low.operand(x, weight), low.buffer(node.outputs[0]), low.buffer(ids)
    w, row_bytes, table = low.matrix(weight)
    kernel, n, offset = linear.experts(weight.type.name), weight.n_rows, low.weights.vector(bias)

    def bind(place: Place) -> Run:
        codes, scale, sums = _arrays(place, operand)
        which, to = place(chosen, _I4), place(out, _F4)

        def run(now: Now) -> None:
            slots = count(now) * ids.cols
            if slots:
                kernel[(slots, min(blocks(-(-n // (linear.ROWS * WARPS))), MOST_ACROSS)), (WARP, WARPS), now.stream](
                    w, row_bytes, table, n, operand.shares, codes, scale, sums, which, ids.cols, x.repeat == 1, offset,
                    bias is not None, to,
                )  # fmt: skip

        return run

    low.add((*operand.buffers, chosen), (out,), bind)
