"""Every op by itself, against its definition: a graph of one node, which is given its inputs.

On a GPU with the sizes of real models: rows of 4,096 columns, heads of 128, and contexts of so many pages that each of
the parts that attention of generated tokens makes has several.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.gguf import GGMLType
from halfbyte.runtime.backends.cuda.backend import CUDABackend
from halfbyte.runtime.backends.cuda.lower_ops import LOWER
from halfbyte.runtime.backends.cuda.package import SIMULATED
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.graph.ir import Graph, KVSpec, Node, Rows, Value, Weight
from halfbyte.runtime.ops import OPS
from halfbyte.runtime.step import PAGE, Step

LENGTHS, CHUNK = ((6, 3), 6) if SIMULATED else ((2500, 700), 301)  # tokens of two sequences, and of a step at most
PER_SEQUENCE = max(LENGTHS) // PAGE + 2
N_PAGES, MAX_TOKENS = 3 * PER_SEQUENCE + 1, 2 * CHUNK
COLS, HEADS, N = (24, 3, 7) if SIMULATED else (4096, 32, 519)
KEY_DIM, VALUE_DIM, WINDOW = (8, 40, 5) if SIMULATED else (128, 128, 777)
ROUTES, USED = (5, 2) if SIMULATED else (64, 8)
EXPERTS = 5
# Sums in another order. Of 4,096 products: between the CPU backend and NumPy 2.1e-5 was seen, of gate and up.
TOLERANCE = 2e-5 if SIMULATED else 1e-4
RNG = np.random.default_rng(11)
FREQUENCIES = np.array([1.0, 0.3, 0.01], np.float32) if SIMULATED else 0.01 ** np.linspace(0, 2, 48, dtype=np.float32)


def weight(name: str, *shape: int) -> Weight:
    """float32, as a file has it. Products with matrices are about as large as what is multiplied."""
    values = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32)
    if len(shape) > 1:
        values /= np.float32(np.sqrt(shape[-1]))
    return Weight(name, GGMLType.F32, shape, values.view(np.uint8))


def value(number: int, cols: int, rows: Rows = Rows.TOKENS, repeat: int = 1, dtype: str = "f32") -> Value:
    return Value(number, f"v{number}", rows, cols, repeat, dtype)


X, Y, OUT = value(0, COLS), value(1, COLS), value(9, COLS)
# name -> op, inputs, outputs, weights, attrs
OPERATIONS: dict[str, tuple[str, tuple[Value, ...], tuple[Value, ...], dict[str, Weight], dict[str, Any]]] = {
    "embed": ("embed", (), (OUT,), {"weight": weight("e", 40, COLS)}, {"source": "tokens", "scale": 1.5}),
    "embed positions": (
        "embed", (), (OUT,), {"weight": weight("p", max(LENGTHS) + 9, COLS)}, {"source": "positions", "scale": 1.0},
    ),
    "embed first": ("embed", (), (OUT,), {"weight": weight("f", 2, COLS)}, {"source": "first", "scale": 1.0}),
    "take_rows": ("take_rows", (X,), (value(9, COLS, Rows.OUTPUTS),), {}, {}),
    "rms_norm": ("rms_norm", (X,), (OUT,), {"weight": weight("w", COLS)}, {"eps": 1e-5, "heads": 1}),
    "rms_norm of heads": (
        "rms_norm", (X,), (OUT,), {"weight": weight("w", COLS // HEADS)}, {"eps": 1e-5, "heads": HEADS},
    ),
    "rms_norm alone": ("rms_norm", (X,), (OUT,), {}, {"eps": 1e-5, "heads": 1}),
    "layer_norm": (
        "layer_norm", (X,), (OUT,), {"weight": weight("w", COLS), "bias": weight("bi", COLS)}, {"eps": 1e-5},
    ),
    "linear": ("linear", (X,), (value(9, N),), {"weight": weight("w", N, COLS), "bias": weight("bi", N)}, {}),
    "linear_add": ("linear_add", (X, value(1, N)), (value(9, N),), {"weight": weight("w", N, COLS)}, {}),
    "linear_glu": (
        "linear_glu", (X,), (value(9, N),),
        {"gate": weight("g", N, COLS), "up": weight("up", N, COLS), "up_bias": weight("ub", N)}, {"act": "gelu"},
    ),
    "add": ("add", (X, Y), (OUT,), {}, {}),
    "scale": ("scale", (X,), (OUT,), {}, {"factor": 0.3}),
    "softcap": ("softcap", (X,), (OUT,), {}, {"cap": 0.7}),
    **{f"glu {act}": ("glu", (X, Y), (OUT,), {}, {"act": act}) for act in ("sigmoid", "silu")},
    **{f"activation {act}": ("activation", (X,), (OUT,), {}, {"act": act}) for act in ("gelu", "gelu_tanh", "silu")},
    **{
        f"rope {style}": (
            "rope", (X,), (OUT,), {},
            {"n_head": HEADS, "n_rot": 2 * len(FREQUENCIES), "style": style, "inv_freq": FREQUENCIES, "mscale": 1.2},
        )
        for style in ("norm", "neox")
    },
    "moe_route": (
        "moe_route", (value(0, ROUTES),), (value(8, USED, dtype="i32"), value(9, USED)), {},
        {"n_used": USED, "gating": "softmax", "normalize": True, "scale": 1.7},
    ),
    "expert_linear": (
        "expert_linear", (X, value(1, 2, dtype="i32")), (value(9, N, repeat=2),),
        {"weight": weight("w", EXPERTS, N, COLS), "bias": weight("bi", EXPERTS, N)}, {},
    ),
    "expert_combine": ("expert_combine", (value(0, COLS, repeat=2), value(1, 2)), (OUT,), {}, {}),
}  # fmt: skip
ATTENTION = {
    "one head for each": {"n_head": 2, "n_head_kv": 2},
    "heads share": {"n_head": 6, "n_head_kv": 2},
    "many heads share": {"n_head": 20, "n_head_kv": 2},
    "window": {"n_head": 4, "n_head_kv": 2, "window": WINDOW},
    "softcap": {"n_head": 4, "n_head_kv": 2, "softcap": 1.5},
    "whole texts": {"n_head": 4, "n_head_kv": 2, "causal": False},
}


def steps() -> list[Step]:
    """Prompts of two sequences on scattered pages, in parts, and a token of each afterwards."""
    pages = np.random.default_rng(5).permutation(N_PAGES)[: 2 * PER_SEQUENCE].reshape(2, -1)
    found = []
    for first in range(0, max(LENGTHS), CHUNK):
        parts = [np.arange(first, min(length, first + CHUNK)) for length in LENGTHS]
        found.append(step_of([part for part in parts if len(part)], pages, is_prompt=True))
    return [*found, step_of([np.array([length]) for length in LENGTHS], pages, is_prompt=False)]


def step_of(positions: list[np.ndarray], pages: np.ndarray, is_prompt: bool) -> Step:
    """New positions of the first sequences; logits of the last of each."""
    counts = [len(part) for part in positions]
    every = np.concatenate(positions)
    sequence, outputs = np.repeat(np.arange(len(counts)), counts), np.cumsum(counts) - 1
    tokens = every % 31 + sequence
    return Step(*(np.asarray(a, np.int32) for a in (tokens, every, sequence, pages, outputs)), is_prompt=is_prompt)


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
            assert np.allclose(found[output.id], expected[output.id], rtol=1e-5, atol=TOLERANCE), output


def random_input(one: Value, step: Step) -> np.ndarray:
    rows = one.repeat * (len(step.outputs) if one.rows is Rows.OUTPUTS else step.n_tokens)
    if one.dtype == "i32":
        return RNG.integers(0, EXPERTS, (rows, one.cols)).astype(np.int32)
    return RNG.standard_normal((rows, one.cols)).astype(np.float32)


@pytest.mark.parametrize("name", OPERATIONS)
def test_ops(name: str) -> None:
    op, inputs, outputs, weights, attrs = OPERATIONS[name]
    compare(Node(op, name, inputs, outputs, weights, attrs))


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str) -> None:
    heads: Mapping[str, Any] = ATTENTION[name]
    n_head, n_head_kv, key_dim, value_dim = heads["n_head"], heads["n_head_kv"], KEY_DIM, VALUE_DIM
    inputs = value(0, n_head * key_dim), value(1, n_head_kv * key_dim), value(2, n_head_kv * value_dim)
    attrs = {
        "layer": 3, "key_dim": key_dim, "value_dim": value_dim, "scale": float(key_dim**-0.5), "window": 0,
        "softcap": 0.0, "causal": True, **heads,
    }  # fmt: skip
    node = Node("attention", "blk.3.attention", inputs, (value(9, n_head * value_dim),), {}, attrs)
    compare(node, (KVSpec(3, n_head_kv, key_dim, value_dim, attrs["window"]),))


def test_every_op_is_here() -> None:
    assert {operation[0] for operation in OPERATIONS.values()} | {"attention"} == set(LOWER) == set(OPS)
