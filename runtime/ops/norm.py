"""Normalisation of rows."""

from __future__ import annotations

import numpy as np

from .spec import F32, REQUIRED, Call, OpError, Shapes, op, require_count, require_f32, require_finite, require_vector


def _rms_norm_shape(call: Call) -> Shapes:
    require_f32(call)
    require_finite(call, "eps", positive=True)
    require_count(call, "heads")
    x, heads = call.inputs[0], call.attrs["heads"]
    if x.cols % heads:
        raise OpError(f"input last dim is {x.cols}, not divisible by {heads} heads")
    require_vector(call, "weight", x.cols // heads, "input last dim" if heads == 1 else f"{x.cols} / {heads} heads")
    return (x,)


@op("rms_norm", _rms_norm_shape, weights={"weight": False}, attrs={"eps": REQUIRED, "heads": 1})
def rms_norm(x: F32, *, weight: F32 | None = None, eps: float, heads: int = 1) -> F32:
    """y = x / sqrt(mean(x^2) + eps) * weight, for each of `heads` groups of columns on its own."""
    groups = x.reshape(len(x), heads, x.shape[1] // heads)
    y = groups / np.sqrt(np.mean(groups * groups, axis=-1, keepdims=True) + np.float32(eps))
    return (y if weight is None else y * weight).reshape(x.shape)


def _layer_norm_shape(call: Call) -> Shapes:
    require_f32(call)
    require_finite(call, "eps", positive=True)
    require_vector(call, "weight", call.inputs[0].cols)
    require_vector(call, "bias", call.inputs[0].cols)
    return (call.inputs[0],)


@op("layer_norm", _layer_norm_shape, weights={"weight": True, "bias": True}, attrs={"eps": REQUIRED})
def layer_norm(x: F32, *, weight: F32, bias: F32, eps: float) -> F32:
    """y = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias, for each row."""
    centred = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(eps)) * weight + bias
