"""How much there is to do: multiply-adds of a call in a step, and the bytes that have to come from memory for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ...cache.kv import KVPool
from ...graph.ir import Node, Rows, Weight
from ...step import Step
from .lower import Call

KV_CACHE = "kv cache"


@dataclass(frozen=True)
class Work:
    """Of one call in one step.

    macs      multiply-adds of products and of attention; what other ops compute is not counted
    n_bytes   weights and cached keys and values to read. Activations are not counted: they stay in the caches
    numbers   what is multiplied: "int8", "half" (weights or cache of 16 bits) or "float"; "" where nothing is
    """

    macs: int = 0
    n_bytes: int = 0
    numbers: str = ""


def work_of(call: Call, step: Step, kv: KVPool) -> Work:
    """What a call has to do in this step."""
    node = call.node
    if reads_cache(call):
        return _attention(node, step, kv)
    weights = weights_of(call)
    if not is_matrix(weights):
        return Work(n_bytes=sum(weight.data.nbytes for weight in weights))
    if node.op == "embed":  # a row for each token
        return Work(n_bytes=sum(step.n_tokens * weight.data.shape[-1] for weight in weights))
    out = node.outputs[0]
    rows = (len(step.outputs) if out.rows is Rows.OUTPUTS else step.n_tokens) * out.repeat
    macs = sum(rows * weight.n_rows * weight.cols for weight in weights)
    numbers = {"F32": "float", "F16": "half", "BF16": "half"}.get(weights[0].type.name, "int8")
    return Work(macs, sum(_read(weight, rows) for weight in weights), numbers)


def weights_of(call: Call) -> list[Weight]:
    """The weights that this call of its node reads: matrices it is given, or the vectors of a node that has no more."""
    weights = list(call.node.weights.values())
    if not is_matrix(weights):
        return weights
    given = {id(value) for value in call.args.values()}
    return [weight for weight in weights if is_matrix([weight]) and id(weight.data) in given]


def is_matrix(weights: list[Weight]) -> bool:
    return any(len(weight.shape) > 1 for weight in weights)


def reads_cache(call: Call) -> bool:
    """Whether this is attention itself, not what stores keys and values for it."""
    return call.node.op == "attention" and "q" in call.args


def op_of(call: Call) -> str:
    """The op of the graph, or what the call does for it: int8 activations, keys and values to the cache."""
    is_main = reads_cache(call) or is_matrix(weights_of(call))
    return call.node.op if is_main else call.kernel.partition(".")[0]


def tensor_of(call: Call) -> str:
    """The tensor without its layer (attn_q, ffn_down, output), several with + between, the cache, or ""."""
    if reads_cache(call):
        return KV_CACHE
    # a norm's bias has the name of its weight
    names = list(dict.fromkeys(re.sub(r"^blk\.\d+\.|\.(weight|bias)\b", "", w.name) for w in weights_of(call)))
    if names == ["token_embd"] and call.node.op != "embed":
        return "output (tied)"  # one tensor, used at both ends
    return "+".join(names)


def types_of(call: Call) -> set[str]:
    return {weight.type.name for weight in weights_of(call)}


def _read(weight: Weight, rows: int) -> int:
    """Bytes. Of experts as many as there are rows, which is exact for one token, and at most all."""
    if len(weight.shape) < 3 or not rows:
        return weight.data.nbytes if rows else 0
    return weight.data.nbytes // weight.shape[0] * min(weight.shape[0], rows)


def _attention(node: Node, step: Step, kv: KVPool) -> Work:
    """Each token meets itself and all before it, the last `window` of them, or its whole text.

    A cached position is read once.
    """
    a = node.attrs
    dims, window = a["key_dim"] + a["value_dim"], a["window"] or 1 << 60
    positions = step.positions.astype(np.int64)
    pairs = read = 0
    for sequence in np.unique(step.sequence):
        mine = positions[step.sequence == sequence]
        seen = np.minimum(mine + 1, window) if a["causal"] else np.full(len(mine), mine.max() + 1)
        pairs += int(seen.sum())
        read += int(mine.max()) + 1 - max(0, int(mine.min()) + 1 - window)
    numbers = "half" if kv.dtype.itemsize == 2 else "float"
    return Work(pairs * a["n_head"] * dims, read * a["n_head_kv"] * dims * kv.dtype.itemsize, numbers)
