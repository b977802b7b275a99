"""Launches of products that cuBLAS makes, for prompts of many tokens (see lower.py and cublas.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...graph.ir import Value, Weight
from ...graph.plan import Buffer
from .cublas import NEVER, Matrix, tokens_from
from .kernels import dequantize
from .lower import PRODUCTS, Lowering, Place, Run, count_of
from .now import Now
from .simt import THREADS, blocks

Multiply = Callable[[Now, int], None]  # a step, and its rows of activations
_F4, _I4 = np.float32, np.int32


@dataclass(frozen=True)
class Dense:
    """A product as cuBLAS makes it, from `least` rows of activations on. `reads`: what it needs but for a residual."""

    least: int
    reads: tuple[Buffer, ...]
    bind: Callable[[Place], Multiply]


def dense(
    low: Lowering, x: Value, weight: Weight, bias: Weight | None, out: Buffer, residual: Buffer | None
) -> Dense | None:
    """out = residual + (x times the transpose of weight + bias); None where cuBLAS makes no such product."""
    name = weight.type.name
    least = tokens_from(name, weight.cols)
    if low.blas is None or least > low.max_tokens:
        return None
    blas, n, offset, none = low.blas, weight.n_rows, low.weights.vector(bias), low.weights.none
    matrix = Matrix(name, *low.matrix(weight), n, weight.cols)
    given, type_ = (low.buffer(x), _F4) if name == "F32" else (brain(low, x), _I4)
    adds = bias is not None or residual is not None

    def bind(place: Place) -> Multiply:
        source, to = place(given, type_), place(out, _F4)
        before = none if residual is None else place(residual, _F4)

        def multiply(now: Now, m: int) -> None:
            if adds:
                begin = dequantize.begin[blocks(-(-m * n // THREADS)), THREADS, now.stream]
                begin(offset, bias is not None, before, residual is not None, n, m, to)
            blas.multiply(matrix, source, m, to, adds=adds)

        return multiply

    return Dense(least, (given,), bind)


def brain(low: Lowering, value: Value) -> Buffer:
    """Where a value is as bfloat16, in steps in which one of its products is cuBLAS's."""
    if value.id not in low.brains:
        x, rows = low.buffer(value), low.max_tokens * value.repeat
        made = low.brains[value.id] = Buffer(f"{value.name}.brain", 4 * -(-rows * value.cols // 2))
        low.add((x,), (made,), _to_brain(value, x, made, min(_borders(low, value))))
    return low.brains[value.id]


def codes_until(low: Lowering, value: Value) -> int:
    """From so many rows on no product reads a value as int8."""
    return NEVER if low.blas is None else max(_borders(low, value))


def _borders(low: Lowering, value: Value) -> list[int]:
    """For each product with a value: the rows from which it is cuBLAS's."""
    return [
        NEVER if node.op == "expert_linear" else tokens_from(weight.type.name, weight.cols)
        for node in low.readers(value)
        if node.op in PRODUCTS and node.inputs[0] == value
        for role, weight in node.weights.items()
        if not role.endswith("bias")
    ]


def _to_brain(value: Value, x: Buffer, made: Buffer, least: int) -> Callable[[Place], Run]:
    count = count_of(value)

    def bind(place: Place) -> Run:
        source, to = place(x, _F4), place(made, _I4)

        def run(now: Now) -> None:
            rows = count(now)
            n = rows * value.cols
            if rows >= least:
                dequantize.to_brain[blocks(-(-n // (2 * THREADS))), THREADS, now.stream](source, n, to)

        return run

    return bind
