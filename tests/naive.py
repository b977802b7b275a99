"""Obvious twins of the op set: one loop per dimension, Python floats (float64), nothing shared with the references.

They serve the NumPy references and, through them or directly, every backend. Arrays in, lists of rows out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Row = list[float]
Matrix = list[Row]


def embed(table: Any, rows: Sequence[int], scale: float) -> Matrix:
    return [[float(value) * scale for value in table[row]] for row in rows]


def rms_norm(x: Any, weight: Any, eps: float, heads: int) -> Matrix:
    out = []
    for row in x:
        size, normed = len(row) // heads, []
        for head in range(heads):
            part = [float(v) for v in row[head * size : (head + 1) * size]]
            root = math.sqrt(sum(v * v for v in part) / size + eps)
            normed += [v / root * (1.0 if weight is None else float(weight[i])) for i, v in enumerate(part)]
        out.append(normed)
    return out


def layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Matrix:
    out = []
    for row in x:
        values = [float(v) for v in row]
        mean = sum(values) / len(values)
        root = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + eps)
        out.append([(v - mean) / root * float(weight[i]) + float(bias[i]) for i, v in enumerate(values)])
    return out


def linear(x: Any, weight: Any, bias: Any = None) -> Matrix:
    out = []
    for row in x:
        out.append([sum(float(a) * float(b) for a, b in zip(row, w, strict=True)) for w in weight])
        if bias is not None:
            out[-1] = [v + float(b) for v, b in zip(out[-1], bias, strict=True)]
    return out


def linear_add(x: Any, residual: Any, weight: Any, bias: Any = None) -> Matrix:
    product = linear(x, weight, bias)
    return [[float(a) + b for a, b in zip(*rows, strict=True)] for rows in zip(residual, product, strict=True)]


def linear_glu(x: Any, gate: Any, up: Any, gate_bias: Any, up_bias: Any, name: str) -> Matrix:
    parts = (linear(x, gate, gate_bias), linear(x, up, up_bias))
    return [[act(g, name) * u for g, u in zip(*rows, strict=True)] for rows in zip(*parts, strict=True)]


def act(value: float, name: str) -> float:
    if name == "sigmoid":
        return 1 / (1 + math.exp(-value))
    if name == "silu":
        return value / (1 + math.exp(-value))
    if name == "gelu":
        return value * 0.5 * (1 + math.erf(value / math.sqrt(2)))
    assert name == "gelu_tanh"
    return value * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))


def rope(x: Any, positions: Sequence[int], n_head: int, n_rot: int, style: str, inv_freq: Any, mscale: float) -> Matrix:
    """Complex multiplication of each pair."""
    out = []
    for row, position in zip(x, positions, strict=True):
        turned, dim = [float(v) for v in row], len(row) // n_head
        for head in range(n_head):
            for i in range(n_rot // 2):
                first, second = (2 * i, 2 * i + 1) if style == "norm" else (i, i + n_rot // 2)
                a, b = head * dim + first, head * dim + second
                angle = position * float(inv_freq[i])
                z = complex(row[a], row[b]) * complex(math.cos(angle), math.sin(angle)) * mscale
                turned[a], turned[b] = z.real, z.imag
        out.append(turned)
    return out


def attention(
    q: Any, history: Sequence[tuple[Any, Any]], n_head: int, n_head_kv: int, scale: float, window: int, softcap: float
) -> Row:
    """One token. `history` holds (key row, value row) of positions 0..p, that of the token last."""
    key_dim, value_dim = len(history[0][0]) // n_head_kv, len(history[0][1]) // n_head_kv
    out: Row = []
    for head in range(n_head):
        shared = head // (n_head // n_head_kv)
        query, scores = q[head * key_dim : (head + 1) * key_dim], {}
        for position, (key, _) in enumerate(history):
            if window and len(history) - position > window:
                continue
            score = scale * sum(float(query[d]) * float(key[shared * key_dim + d]) for d in range(key_dim))
            scores[position] = softcap * math.tanh(score / softcap) if softcap else score
        weights = {position: math.exp(score - max(scores.values())) for position, score in scores.items()}
        total = sum(weights.values())
        for d in range(value_dim):
            column = shared * value_dim + d
            out.append(sum(w / total * float(history[p][1][column]) for p, w in weights.items()))
    return out


def moe_route(logits: Any, n_used: int, normalize: bool, scale: float) -> tuple[list[list[int]], Matrix]:
    ids, weights = [], []
    for row in logits:
        values = [math.exp(float(v)) for v in row]
        best = sorted(range(len(values)), key=lambda e, v=values: (-v[e], e))[:n_used]
        total = sum(values[e] for e in best) if normalize else sum(values)
        ids.append(best)
        weights.append([values[e] / total * scale for e in best])
    return ids, weights


def expert_linear(x: Any, ids: Any, weight: Any, bias: Any = None) -> Matrix:
    out, n_used = [], len(ids[0])
    for t, chosen in enumerate(ids):
        for j, expert in enumerate(chosen):
            row = x[t * n_used + j] if len(x) == len(ids) * n_used else x[t]
            out += linear([row], weight[expert], None if bias is None else bias[expert])
    return out


def expert_combine(y: Any, weights: Any) -> Matrix:
    n_used = len(weights[0])
    return [
        [sum(float(w[j]) * float(y[t * n_used + j][c]) for j in range(n_used)) for c in range(len(y[0]))]
        for t, w in enumerate(weights)
    ]
