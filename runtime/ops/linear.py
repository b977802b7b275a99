"""Matrix products with weights."""

from __future__ import annotations

from .spec import F32, Call, OpError, Shape, Shapes, op, require_f32, require_vector


def linear_shape(call: Call) -> Shapes:
    """The shape rule of `linear`, which fused products share."""
    require_f32(call)
    x, shape = call.inputs[0], call.weights["weight"].shape
    if len(shape) != 2:
        raise OpError(f"weight has {len(shape)} dimensions, must be a matrix")
    n, k = shape
    if k != x.cols:
        raise OpError(f"weight has rows of {k} elements, input last dim is {x.cols}")
    require_vector(call, "bias", n, "the number of weight rows")
    return (Shape(x.rows, n, x.repeat),)


@op("linear", linear_shape, weights={"weight": True, "bias": False})
def linear(x: F32, *, weight: F32, bias: F32 | None = None) -> F32:
    """x[rows, k] times the transpose of weight[n, k], plus bias[n]: [rows, n]."""
    y = x @ weight.T
    return y if bias is None else y + bias
