"""Ops that no family asks for: graph/rewrites.py makes them of the ops they are defined by."""

from __future__ import annotations

from .elementwise import ACTIVATIONS, glu
from .linear import linear, linear_shape
from .spec import F32, REQUIRED, Call, OpError, Shape, Shapes, describe, op, require_choice, require_f32


def _linear_add_shape(call: Call) -> Shapes:
    require_f32(call)
    x, residual = call.inputs
    (out,) = linear_shape(Call((x,), call.weights, {}))
    if residual != out:
        raise OpError(f"input 1 is {describe(residual)}, the product is {describe(out)}")
    return (out,)


@op("linear_add", _linear_add_shape, inputs=2, weights={"weight": True, "bias": False})
def linear_add(x: F32, residual: F32, *, weight: F32, bias: F32 | None = None) -> F32:
    """residual[rows, n] + linear(x[rows, k], weight[n, k], bias[n])"""
    product = linear(x, weight=weight, bias=bias)
    return residual + product


def _linear_glu_shape(call: Call) -> Shapes:
    require_choice(call, "act", ACTIVATIONS)
    shapes: list[Shape] = []
    for role in ("gate", "up"):
        bias = call.weights.get(f"{role}_bias")
        weights = {"weight": call.weights[role], **({} if bias is None else {"bias": bias})}
        try:
            shapes += linear_shape(Call(call.inputs, weights, {}))
        except OpError as error:
            raise OpError(f"{role}: {error}") from None
    if shapes[0] != shapes[1]:
        raise OpError(f"gate has {shapes[0].cols} rows, up has {shapes[1].cols}")
    return (shapes[0],)


@op(
    "linear_glu",
    _linear_glu_shape,
    weights={"gate": True, "up": True, "gate_bias": False, "up_bias": False},
    attrs={"act": REQUIRED},
)
def linear_glu(
    x: F32, *, gate: F32, up: F32, gate_bias: F32 | None = None, up_bias: F32 | None = None, act: str
) -> F32:
    """act(linear(x, gate)) * linear(x, up): x[rows, k], gate[n, k], up[n, k] -> [rows, n]"""
    return glu(linear(x, weight=gate, bias=gate_bias), linear(x, weight=up, bias=up_bias), act=act)
