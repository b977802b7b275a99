"""Mixture of experts: choose experts for each token, apply them, add up what they say."""

from __future__ import annotations

import numpy as np

from .spec import (
    F32,
    I32,
    REQUIRED,
    Call,
    OpError,
    Shape,
    Shapes,
    op,
    require_choice,
    require_count,
    require_f32,
    require_finite,
)

GATINGS = ("softmax",)
MIN_WEIGHT_SUM = 2.0**-14  # smallest normal float16: ggml's guard against dividing by nothing


def _route_shape(call: Call) -> Shapes:
    require_f32(call)
    require_count(call, "n_used")
    require_choice(call, "gating", GATINGS)
    require_finite(call, "scale", positive=True)
    x, n_used = call.inputs[0], call.attrs["n_used"]
    if x.repeat != 1:
        raise OpError("input must have one row per token")
    if n_used > x.cols:
        raise OpError(f"cannot use {n_used} of {x.cols} experts")
    return Shape(x.rows, n_used, dtype="i32"), Shape(x.rows, n_used)


@op("moe_route", _route_shape, attrs={"n_used": REQUIRED, "gating": "softmax", "normalize": REQUIRED, "scale": 1.0})
def moe_route(
    logits: F32, *, n_used: int, gating: str = "softmax", normalize: bool, scale: float = 1.0
) -> tuple[I32, F32]:
    """The `n_used` most probable experts of each row, best first (ties: the lower id), and their weights.

    Weights are probabilities over all experts; `normalize` makes the chosen ones add up to one; `scale` comes last.
    logits[T, n_expert] -> ids int32[T, n_used], weights float32[T, n_used].
    """
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
    ids = np.argsort(-probabilities, axis=-1, kind="stable")[:, :n_used].astype(np.int32)
    weights = np.take_along_axis(probabilities, ids, axis=-1)
    if normalize:
        weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), np.float32(MIN_WEIGHT_SUM))
    return ids, weights * np.float32(scale)


def _expert_linear_shape(call: Call) -> Shapes:
    require_f32(call, 0)
    x, ids = call.inputs
    weight, bias = call.weights["weight"], call.weights.get("bias")
    if ids.dtype != "i32" or ids.repeat != 1 or ids.rows is not x.rows:
        raise OpError("input 1 must be i32 expert ids, one row per token")
    if x.repeat not in (1, ids.cols):
        raise OpError(f"input 0 is repeated {x.repeat} times, must be 1 or {ids.cols} (experts used)")
    if len(weight.shape) != 3:
        raise OpError(f"weight has {len(weight.shape)} dimensions, must be a stack of matrices")
    n_expert, n, k = weight.shape
    if k != x.cols:
        raise OpError(f"weight has rows of {k} elements, input last dim is {x.cols}")
    if bias is not None and bias.shape != (n_expert, n):
        raise OpError(f"bias has shape {bias.shape}, must be {(n_expert, n)}")
    return (Shape(x.rows, n, ids.cols),)


@op("expert_linear", _expert_linear_shape, inputs=2, weights={"weight": True, "bias": False})
def expert_linear(x: F32, ids: I32, *, weight: F32, bias: F32 | None = None) -> F32:
    """Row t*n_used + j of the result is weight[ids[t, j]] times row t (or t*n_used + j, if x is repeated) of x.

    weight[n_expert, n, k], bias[n_expert, n] -> [T*n_used, n].
    """
    flat = ids.reshape(-1)
    inputs = x if len(x) == len(flat) else np.repeat(x, ids.shape[1], axis=0)
    out = np.empty((len(flat), weight.shape[1]), np.float32)
    for expert in np.unique(flat):
        mine = flat == expert
        out[mine] = inputs[mine] @ weight[expert].T
    return out if bias is None else out + bias[flat]


def _combine_shape(call: Call) -> Shapes:
    require_f32(call)
    y, weights = call.inputs
    if weights.repeat != 1 or weights.rows is not y.rows or y.repeat != weights.cols:
        raise OpError(f"input 0 is repeated {y.repeat} times, input 1 has {weights.cols} weights per token")
    return (Shape(y.rows, y.cols),)


@op("expert_combine", _combine_shape, inputs=2)
def expert_combine(y: F32, weights: F32) -> F32:
    """Weighted sum over the experts of each token: y[T*n_used, n], weights[T, n_used] -> [T, n]."""
    per_token = y.reshape(*weights.shape, y.shape[-1])
    return (per_token * weights[..., None]).sum(axis=1)
