"""Mixture of experts: which experts each token uses, and the sum of what they say."""

from __future__ import annotations

import numpy as np

from ..jit import device, kernel
from ..simd.table import exp_negative, f32_view, fma, i32_view, load, max_of, splat, store, sum_of
from .share import share

MIN_WEIGHT_SUM = np.float32(2.0**-14)  # the guard of the reference against dividing by nothing


@device
def _exp(x):  # type: ignore[no-untyped-def]
    return max_of(exp_negative(splat(x)))


@device
def _sum_exp(logits_at, n, largest):  # type: ignore[no-untyped-def]
    """Sum of e^(logit - largest)."""
    shift, total = splat(largest), splat(np.float32(0.0))
    whole = n // 16 * 16
    for i in range(0, whole, 16):
        total = total + exp_negative(load(logits_at + np.uint64(4 * i)) - shift)
    result = sum_of(total)
    rest = f32_view(logits_at, n)
    for i in range(whole, n):
        result += _exp(rest[i] - largest)
    return result


@device
def _tokens(a, step):  # type: ignore[no-untyped-def]
    """Rows of this operation in this step."""
    if a.on_outputs != 0:
        return step.n_outputs
    return step.n_tokens


@kernel("moe_route")
def moe_route(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """Softmax over all experts, then the n_used most probable, best first; of equals the lower index.

    Experts are ordered by logit: the same order, but no two are made equal by rounding.
    """
    start, stop = share(_tokens(a, step), 1, tid, nth)
    for t in range(start, stop):
        at = a.logits + np.uint64(4 * t * a.n_expert)
        logits = f32_view(at, a.n_expert)
        ids = i32_view(a.ids + np.uint64(4 * t * a.n_used), a.n_used)
        weights = f32_view(a.weights + np.uint64(4 * t * a.n_used), a.n_used)
        for j in range(a.n_used):
            best = -1
            for i in range(a.n_expert):
                if j > 0:
                    last = ids[j - 1]
                    if logits[i] > logits[last] or (logits[i] == logits[last] and i <= last):
                        continue  # chosen already
                if best < 0 or logits[i] > logits[best]:
                    best = i
            ids[j] = max(best, 0)  # none is left only among NaN
        largest = logits[ids[0]]
        scale = np.float32(1.0) / _sum_exp(at, a.n_expert, largest)
        total = np.float32(0.0)
        for j in range(a.n_used):
            weights[j] = _exp(logits[ids[j]] - largest) * scale
            total += weights[j]
        factor = a.factor
        if a.normalize != 0:
            factor = factor / max(total, MIN_WEIGHT_SUM)
        for j in range(a.n_used):
            weights[j] *= factor


@kernel("expert_combine")
def expert_combine(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """out[t] = sum over j of weights[t, j] * y[t * n_used + j]; threads take ranges of the flattened result."""
    start, stop = share(_tokens(a, step) * a.cols, 64, tid, nth)
    at = start
    while at < stop:
        t, column = at // a.cols, at % a.cols
        n = min(stop - at, a.cols - column)
        weights = f32_view(a.weights + np.uint64(4 * t * a.n_used), a.n_used)
        y = a.y + np.uint64(4 * (t * a.n_used * a.cols + column))
        out = a.out + np.uint64(4 * at)
        whole = n // 16 * 16
        for i in range(0, whole, 16):
            total = splat(np.float32(0.0))
            for j in range(a.n_used):
                total = fma(load(y + np.uint64(4 * (j * a.cols + i))), splat(weights[j]), total)
            store(out + np.uint64(4 * i), total)
        result = f32_view(out, n)
        for i in range(whole, n):
            one = np.float32(0.0)
            for j in range(a.n_used):
                one += f32_view(y + np.uint64(4 * j * a.cols), n)[i] * weights[j]
            result[i] = one
        at += n
