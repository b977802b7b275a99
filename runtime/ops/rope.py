"""Rotary position embedding."""

from __future__ import annotations

import numpy as np

from ..graph.ir import Rows
from ..step import Step
from .spec import F32, REQUIRED, Call, OpError, Shapes, op, require_choice, require_count, require_f32, require_finite

STYLES = ("norm", "neox")


def _rope_shape(call: Call) -> Shapes:
    require_f32(call)
    require_count(call, "n_head", "n_rot")
    require_choice(call, "style", STYLES)
    require_finite(call, "mscale", positive=True)
    x, n_head, n_rot, inv_freq = call.inputs[0], *(call.attrs[a] for a in ("n_head", "n_rot", "inv_freq"))
    if x.rows is not Rows.TOKENS or x.repeat != 1:
        raise OpError("input must have one row per token")
    if x.cols % n_head:
        raise OpError(f"input last dim is {x.cols}, not divisible by {n_head} heads")
    if n_rot % 2 or n_rot > x.cols // n_head:
        raise OpError(f"n_rot is {n_rot}, must be even and at most the head dim {x.cols // n_head}")
    if not isinstance(inv_freq, np.ndarray) or inv_freq.dtype != np.float32 or inv_freq.shape != (n_rot // 2,):
        raise OpError(f"inv_freq must be a float32 array of {n_rot // 2} elements")
    if not np.isfinite(inv_freq).all():
        raise OpError("inv_freq holds a number that is not finite")
    return (x,)


@op(
    "rope",
    _rope_shape,
    attrs={"n_head": REQUIRED, "n_rot": REQUIRED, "style": REQUIRED, "inv_freq": REQUIRED, "mscale": 1.0},
    needs=("step",),
)
def rope(x: F32, *, n_head: int, n_rot: int, style: str, inv_freq: F32, mscale: float = 1.0, step: Step) -> F32:
    """Rotate pairs of the first `n_rot` dims of each head by position * inv_freq, then scale them by `mscale`.

    style "norm" pairs neighbours (2i, 2i+1), "neox" pairs halves (i, i + n_rot/2). Dims from n_rot on pass unchanged.
    """
    heads = x.reshape(len(x), n_head, x.shape[1] // n_head)
    angles = step.positions.astype(np.float32)[:, None, None] * inv_freq
    cos, sin = np.cos(angles) * np.float32(mscale), np.sin(angles) * np.float32(mscale)
    first, second = _pairs(n_rot, style)
    a, b = heads[..., first], heads[..., second]
    out = heads.copy()
    out[..., first], out[..., second] = a * cos - b * sin, a * sin + b * cos
    return out.reshape(x.shape)


def _pairs(n_rot: int, style: str) -> tuple[slice, slice]:
    if style == "norm":
        return slice(0, n_rot, 2), slice(1, n_rot, 2)
    return slice(0, n_rot // 2), slice(n_rot // 2, n_rot)
