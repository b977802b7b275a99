"""Ops that pick rows: of a table by token or position, of a value by what is wanted as output."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.ir import Rows
from ..step import Step
from .spec import F32, Call, OpError, Shape, Shapes, op, require_choice, require_f32, require_finite

SOURCES = ("tokens", "positions", "first")


def _embed_shape(call: Call) -> Shapes:
    require_choice(call, "source", SOURCES)
    require_finite(call, "scale")
    shape = call.weights["weight"].shape
    if len(shape) != 2:
        raise OpError(f"weight has {len(shape)} dimensions, must be a matrix")
    return (Shape(Rows.TOKENS, shape[1]),)


@op(
    "embed",
    _embed_shape,
    inputs=0,
    weights={"weight": True},
    attrs={"source": "tokens", "scale": 1.0},
    needs=("step",),
)
def embed(*, weight: Any, source: str = "tokens", scale: float = 1.0, step: Step) -> F32:
    """One row of weight[V, d] per token, chosen by its id or by its position or always the first, times `scale`.

    `weight` needs only indexing by an integer array, so that a backend may decode no more than the rows wanted.
    """
    chosen = {"tokens": step.tokens, "positions": step.positions, "first": np.zeros_like(step.tokens)}[source]
    rows: F32 = weight[chosen]
    return rows * np.float32(scale)


def _take_rows_shape(call: Call) -> Shapes:
    require_f32(call)
    x = call.inputs[0]
    if x.rows is not Rows.TOKENS or x.repeat != 1:
        raise OpError("input must have one row per token")
    return (Shape(Rows.OUTPUTS, x.cols),)


@op("take_rows", _take_rows_shape, needs=("step",))
def take_rows(x: F32, *, step: Step) -> F32:
    """The rows whose logits are wanted: x[step.outputs]. What follows is computed for them only."""
    return x[step.outputs]
