"""Mixture of experts. The definition: runtime/ops/moe.py; products with experts are in linear.py."""

from __future__ import annotations

import math

import numpy as np

from ....ops.moe import MIN_WEIGHT_SUM
from ..package import cuda

_LEAST_SUM = np.float32(MIN_WEIGHT_SUM)


@cuda.jit
def moe_route(logits, n_expert, n_used, normalize, factor, m, ids, weights):  # type: ignore[no-untyped-def]
    """A thread for each token: there are few experts, and fewer of them are chosen."""
    for t in range(cuda.grid(1), m, cuda.gridsize(1)):
        row = t * n_expert
        most = logits[row]
        for e in range(1, n_expert):
            most = max(most, logits[row + e])
        total = np.float32(0.0)
        for e in range(n_expert):
            total += np.float32(math.exp(logits[row + e] - most))
        chosen = np.float32(0.0)
        for k in range(n_used):
            best = -1
            for e in range(n_expert):
                is_new = True
                for j in range(k):
                    is_new = is_new and ids[t * n_used + j] != e
                if is_new and (best < 0 or logits[row + e] > logits[row + best]):
                    best = e
            share = np.float32(math.exp(logits[row + best] - most)) / total
            ids[t * n_used + k] = best
            weights[t * n_used + k] = share
            chosen += share
        for k in range(n_used):
            share = weights[t * n_used + k]
            weights[t * n_used + k] = (share / max(chosen, _LEAST_SUM) if normalize else share) * factor


@cuda.jit
def expert_combine(y, weights, n_used, cols, m, out):  # type: ignore[no-untyped-def]
    """out[t] = the sum over k of weights[t, k] * y[t * n_used + k]"""
    for i in range(cuda.grid(1), m * cols, cuda.gridsize(1)):
        t, c = i // cols, i % cols
        total = np.float32(0.0)
        for k in range(n_used):
            total += weights[t * n_used + k] * y[(t * n_used + k) * cols + c]
        out[i] = total
