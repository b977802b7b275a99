"""Every op by itself, against its definition: a graph of one node, which is given its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.gguf import GGMLType
from halfbyte.runtime.backends.cuda.backend import CUDABackend
from halfbyte.runtime.backends.cuda.lower_ops import LOWER
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.graph.ir import Graph, KVSpec, Node, Rows, Value, Weight
from halfbyte.runtime.ops import OPS
from halfbyte.runtime.step import Step

N_PAGES, MAX_TOKENS = 7, 12
RNG = np.random.default_rng(11)
FREQUENCIES = np.array([1.0, 0.3, 0.01], np.float32)


def weight(name: str, *shape: int) -> Weight:
    """float32, as a file has it."""
    values = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32)
    return Weight(name, GGMLType.F32, shape, values.view(np.uint8))


def value(number: int, cols: int, rows: Rows = Rows.TOKENS, repeat: int = 1, dtype: str = "f32") -> Value:
    return Value(number, f"v{number}", rows, cols, repeat, dtype)


X, Y, OUT = value(0, 24), value(1, 24), value(9, 24)
# name -> op, inputs, outputs, weights, attrs
OPERATIONS: dict[str, tuple[str, tuple[Value, ...], tuple[Value, ...], dict[str, Weight], dict[str, Any]]] = {
    "embed": ("embed", (), (OUT,), {"weight": weight("e", 40, 24)}, {"source": "tokens", "scale": 1.5}),
    "embed positions": ("embed", (), (OUT,), {"weight": weight("p", 99, 24)}, {"source": "positions", "scale": 1.0}),
    "embed first": ("embed", (), (OUT,), {"weight": weight("f", 2, 24)}, {"source": "first", "scale": 1.0}),
    "take_rows": ("take_rows", (X,), (value(9, 24, Rows.OUTPUTS),), {}, {}),
    "rms_norm": ("rms_norm", (X,), (OUT,), {"weight": weight("w", 24)}, {"eps": 1e-5, "heads": 1}),
    "rms_norm of heads": ("rms_norm", (X,), (OUT,), {"weight": weight("w", 8)}, {"eps": 1e-5, "heads": 3}),
    "rms_norm alone": ("rms_norm", (X,), (OUT,), {}, {"eps": 1e-5, "heads": 1}),
    "layer_norm": ("layer_norm", (X,), (OUT,), {"weight": weight("w", 24), "bias": weight("bi", 24)}, {"eps": 1e-5}),
    "linear": ("linear", (X,), (value(9, 7),), {"weight": weight("w", 7, 24), "bias": weight("bi", 7)}, {}),
    "linear_add": ("linear_add", (X, value(1, 7)), (value(9, 7),), {"weight": weight("w", 7, 24)}, {}),
    "linear_glu": (
        "linear_glu", (X,), (value(9, 7),),
        {"gate": weight("g", 7, 24), "up": weight("up", 7, 24), "up_bias": weight("ub", 7)}, {"act": "gelu"},
    ),
    "add": ("add", (X, Y), (OUT,), {}, {}),
    "scale": ("scale", (X,), (OUT,), {}, {"factor": 0.3}),
    "softcap": ("softcap", (X,), (OUT,), {}, {"cap": 0.7}),
    **{f"glu {act}": ("glu", (X, Y), (OUT,), {}, {"act": act}) for act in ("sigmoid", "silu")},
    **{f"activation {act}": ("activation", (X,), (OUT,), {}, {"act": act}) for act in ("gelu", "gelu_tanh", "silu")},
    **{
        f"rope {style}": (
            "rope", (X,), (OUT,), {},
            {"n_head": 3, "n_rot": 6, "style": style, "inv_freq": FREQUENCIES, "mscale": 1.2},
        )
        for style in ("norm", "neox")
    },
    "moe_route": (
        "moe_route", (value(0, 5),), (value(8, 2, dtype="i32"), value(9, 2)), {},
        {"n_used": 2, "gating": "softmax", "normalize": True, "scale": 1.7},
    ),
    "expert_linear": (
        "expert_linear", (X, value(1, 2, dtype="i32")), (value(9, 7, repeat=2),),
        {"weight": weight("w", 5, 7, 24), "bias": weight("bi", 5, 7)}, {},
    ),
    "expert_combine": ("expert_combine", (value(0, 24, repeat=2), value(1, 2)), (OUT,), {}, {}),
}  # fmt: skip
ATTENTION = {
    "one head for each": {"n_head": 2, "n_head_kv": 2},
    "heads share": {"n_head": 6, "n_head_kv": 2},
    "many heads share": {"n_head": 20, "n_head_kv": 2},
    "window": {"n_head": 4, "n_head_kv": 2, "window": 5},
    "softcap": {"n_head": 4, "n_head_kv": 2, "softcap": 1.5},
    "whole texts": {"n_head": 4, "n_head_kv": 2, "causal": False},
}


def steps() -> list[Step]:
    """Prompts of two sequences on scattered pages, and a token of each afterwards."""
    pages = np.array([[5, 1], [3, 0]], np.int32)

    def step(tokens: list[int], positions: list[int], sequence: list[int], outputs: list[int], prompt: bool) -> Step:
        arrays = (np.array(a, np.int32) for a in (tokens, positions, sequence, pages, outputs))
        return Step(*arrays, is_prompt=prompt)

    first = step(list(range(9)), [*range(6), *range(3)], [0] * 6 + [1] * 3, [5, 8], True)
    return [first, step([30, 31], [6, 3], [0, 1], [0, 1], False)]


def compare(node: Node, state: tuple[KVSpec, ...] = ()) -> None:
    """Both backends over all steps; keys and values are float16 in both."""
    graph = Graph((node,), node.outputs[-1], state, given=node.inputs, kept=node.outputs)
    backends = CUDABackend(), ReferenceBackend(np.float16)
    executors = [b.compile(graph, n_pages=N_PAGES, max_tokens=MAX_TOKENS, threads=1) for b in backends]
    for step in steps():
        given = {v.id: random_input(v, step) for v in node.inputs}
        found, expected = (executor.run_part(step, given) for executor in executors)
        for output in node.outputs:
            assert np.isfinite(found[output.id]).all()
            assert np.allclose(found[output.id], expected[output.id], rtol=1e-5, atol=2e-5), output


def random_input(one: Value, step: Step) -> np.ndarray:
    rows = one.repeat * (len(step.outputs) if one.rows is Rows.OUTPUTS else step.n_tokens)
    if one.dtype == "i32":
        return RNG.integers(0, 5, (rows, one.cols)).astype(np.int32)
    return RNG.standard_normal((rows, one.cols)).astype(np.float32)


@pytest.mark.parametrize("name", OPERATIONS)
def test_ops(name: str) -> None:
    op, inputs, outputs, weights, attrs = OPERATIONS[name]
    compare(Node(op, name, inputs, outputs, weights, attrs))


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str) -> None:
    heads: Mapping[str, Any] = ATTENTION[name]
    n_head, n_head_kv, key_dim, value_dim = heads["n_head"], heads["n_head_kv"], 8, 40
    inputs = value(0, n_head * key_dim), value(1, n_head_kv * key_dim), value(2, n_head_kv * value_dim)
    attrs = {
        "layer": 3, "key_dim": key_dim, "value_dim": value_dim, "scale": 0.4, "window": 0, "softcap": 0.0,
        "causal": True, **heads,
    }  # fmt: skip
    node = Node("attention", "blk.3.attention", inputs, (value(9, n_head * value_dim),), {}, attrs)
    compare(node, (KVSpec(3, n_head_kv, key_dim, value_dim, attrs["window"]),))


def test_every_op_is_here() -> None:
    assert {operation[0] for operation in OPERATIONS.values()} | {"attention"} == set(LOWER) == set(OPS)
