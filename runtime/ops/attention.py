"""Attention over the paged key/value cache, causal or over whole texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..cache.kv import KVPool
from ..graph.ir import Rows
from ..step import PAGE, Step
from .spec import F32, REQUIRED, Call, OpError, Shape, Shapes, op, require_count, require_f32, require_finite


def _attention_shape(call: Call) -> Shapes:
    require_f32(call)
    require_count(call, "n_head", "n_head_kv", "key_dim", "value_dim")
    require_finite(call, "scale", "softcap")
    n_head, n_head_kv, key_dim, value_dim = (call.attrs[a] for a in ("n_head", "n_head_kv", "key_dim", "value_dim"))
    if n_head % n_head_kv:
        raise OpError(f"{n_head} heads cannot share {n_head_kv} key/value heads evenly")
    for name in ("layer", "window"):
        if type(call.attrs[name]) is not int or call.attrs[name] < 0:
            raise OpError(f"{name} is {call.attrs[name]!r}, must be a whole number of at least 0")
    if call.attrs["window"] and not call.attrs["causal"]:
        raise OpError("a window needs causal attention")
    if call.attrs["softcap"] < 0:
        raise OpError(f"softcap is {call.attrs['softcap']}, must be at least 0")
    expected = (n_head * key_dim, n_head_kv * key_dim, n_head_kv * value_dim)
    for name, value, cols in zip(("query", "key", "value"), call.inputs, expected, strict=True):
        if value.rows is not Rows.TOKENS or value.repeat != 1:
            raise OpError(f"{name} must have one row per token")
        if value.cols != cols:
            raise OpError(f"{name} last dim is {value.cols}, heads times dim is {cols}")
    return (Shape(Rows.TOKENS, n_head * value_dim),)


@op(
    "attention",
    _attention_shape,
    inputs=3,
    attrs={
        "layer": REQUIRED,
        "n_head": REQUIRED,
        "n_head_kv": REQUIRED,
        "key_dim": REQUIRED,
        "value_dim": REQUIRED,
        "scale": REQUIRED,
        "window": 0,
        "softcap": 0.0,
        "causal": True,
    },
    needs=("step", "kv"),
)
def attention(
    q: F32,
    k: F32,
    v: F32,
    *,
    layer: int,
    n_head: int,
    n_head_kv: int,
    key_dim: int,
    value_dim: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    causal: bool = True,
    step: Step,
    kv: KVPool,
) -> F32:
    """Store keys and values of all tokens of the step, then attend.

    A token at position p of its sequence sees the positions max(0, p - window + 1)..p, or all of 0..p when window is 0.
    Not causal, it sees all positions up to the last one in the step: a text must come in one step, or its first tokens
    would not see the others.
    Several query heads share a key/value head. Scores are scaled by `scale`, then capped to cap * tanh(score / cap)
    when softcap > 0. q[T, n_head*key_dim], k[T, n_head_kv*key_dim], v[T, n_head_kv*value_dim] -> [T, n_head*value_dim].
    """
    n, group = len(q), n_head // n_head_kv
    keys, values = k.reshape(n, n_head_kv, key_dim), v.reshape(n, n_head_kv, value_dim)
    for i, position in enumerate(step.positions):
        page = step.pages[step.sequence[i], position // PAGE]
        kv.store(layer, int(page), int(position % PAGE), keys[i], values[i])

    queries = q.reshape(n, n_head_kv, group, key_dim)
    out = np.empty((n, n_head_kv, group, value_dim), np.float32)
    for sequence in np.unique(step.sequence):
        mine = np.flatnonzero(step.sequence == sequence)
        positions = step.positions[mine]
        first_page = max(0, int(positions.min()) - window + 1) // PAGE if window else 0
        seen = np.arange(first_page * PAGE, int(positions.max()) + 1)
        past_keys, past_values = kv.gather(layer, step.pages[sequence, first_page:], len(seen))
        hidden = _hidden(positions, seen, window)[:, None] if causal else np.False_
        for head in range(n_head_kv):
            scores = queries[mine, head] @ past_keys[head].T * np.float32(scale)  # [tokens, group, seen]
            if softcap:
                scores = np.float32(softcap) * np.tanh(scores / np.float32(softcap))
            out[mine, head] = _softmax(np.where(hidden, np.float32(-np.inf), scores)) @ past_values[head]
    return out.reshape(n, n_head * value_dim)


def _hidden(positions: NDArray[np.int32], seen: NDArray[np.int64], window: int) -> NDArray[np.bool_]:
    """bool [tokens, seen]: True where a token may not look."""
    distance = positions[:, None] - seen
    return (distance < 0) | (distance >= window) if window else distance < 0


def _softmax(scores: F32) -> F32:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
