"""Each op's reference against its naive twin, through the registry, with all dimensions different."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from halfbyte.runtime.cache.kv import KVPool
from halfbyte.runtime.graph.ir import KVSpec
from halfbyte.runtime.ops import OPS
from halfbyte.runtime.step import PAGE, Step
from numpy.typing import NDArray

from .. import naive

TOLERANCE = 3e-6  # float32 sums of a few dozen terms of order one, against float64


def draw(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).normal(0, 1, shape).astype(np.float32)


def reference(name: str, *inputs: Any, **keywords: Any) -> Any:
    return OPS[name].reference(*inputs, **keywords)


def assert_close(found: NDArray[Any], expected: Any) -> None:
    expected = np.array(expected, np.float64)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * max(1.0, np.abs(expected).max())


def make_step(tokens: Any, positions: Any, sequence: Any = None, pages: Any = None, outputs: Any = ()) -> Step:
    sequence = [0] * len(tokens) if sequence is None else sequence
    pages = [[0]] if pages is None else pages
    return Step(*(np.array(a, np.int32) for a in (tokens, positions, sequence, pages, outputs)))


@pytest.mark.parametrize(
    ("source", "rows"), [("tokens", [4, 0, 6, 4]), ("positions", [1, 2, 3, 0]), ("first", [0] * 4)]
)
def test_embed(source: str, rows: list[int]) -> None:
    step, table = make_step([4, 0, 6, 4], [1, 2, 3, 0]), draw(7, 5)
    assert_close(reference("embed", weight=table, source=source, scale=1.7, step=step), naive.embed(table, rows, 1.7))


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("weighted", [True, False])
def test_rms_norm(heads: int, weighted: bool) -> None:
    x, weight = draw(4, 15), draw(15 // heads, seed=1) if weighted else None
    x[1] *= 1e-3  # here eps decides
    expected = naive.rms_norm(x, weight, 1e-5, heads)
    assert_close(reference("rms_norm", x, weight=weight, eps=1e-5, heads=heads), expected)


def test_layer_norm() -> None:
    x, weight, bias = draw(4, 7) + 3, draw(7), draw(7, seed=1)
    expected = naive.layer_norm(x, weight, bias, 1e-2)
    assert_close(reference("layer_norm", x, weight=weight, bias=bias, eps=1e-2), expected)


@pytest.mark.parametrize("biased", [True, False])
def test_linear(biased: bool) -> None:
    x, weight, bias = draw(3, 11), draw(5, 11), draw(5) if biased else None
    assert_close(reference("linear", x, weight=weight, bias=bias), naive.linear(x, weight, bias))


def test_add_and_scale() -> None:
    x, y = draw(3, 5), draw(3, 5, seed=1)
    assert_close(
        reference("add", x, y), [[float(a) + float(b) for a, b in zip(*r, strict=True)] for r in zip(x, y, strict=True)]
    )
    assert_close(reference("scale", x, factor=0.3), x.astype(np.float64) * 0.3)


@pytest.mark.parametrize("act", ["sigmoid", "silu", "gelu", "gelu_tanh"])
def test_activations(act: str) -> None:
    x, up = draw(3, 5) * 4, draw(3, 5, seed=1)
    expected = [[naive.act(float(a), act) for a in row] for row in x]
    assert_close(reference("activation", x, act=act), expected)
    gated = [[a * float(b) for a, b in zip(*rows, strict=True)] for rows in zip(expected, up, strict=True)]
    assert_close(reference("glu", x, up, act=act), gated)


@pytest.mark.parametrize("act", ["silu", "gelu", "gelu_tanh"])
def test_activations_have_limits(act: str) -> None:
    x = np.array([[-np.inf, -1e4, -0.0, 0.0, 1e4, np.inf, np.nan]], np.float32)[:, 1:5]
    assert reference("activation", x, act=act).tolist() == [[0, 0, 0, 1e4]]
    assert reference("activation", x, act="sigmoid").tolist() == [[0, 0.5, 0.5, 1]]


def test_softcap() -> None:
    x = draw(3, 5) * 20
    expected = [[7.5 * np.tanh(float(a) / 7.5) for a in row] for row in x]
    assert_close(reference("softcap", x, cap=7.5), expected)


def test_take_rows() -> None:
    x = draw(5, 3)
    assert reference("take_rows", x, step=make_step([0] * 5, range(5), outputs=[1, 4])).tolist() == x[[1, 4]].tolist()


@pytest.mark.parametrize("style", ["norm", "neox"])
@pytest.mark.parametrize("n_rot", [10, 6])
def test_rope(style: str, n_rot: int) -> None:
    positions, inv_freq = [0, 1, 5, 1000], np.linspace(1, 0.01, n_rot // 2).astype(np.float32)
    x = draw(4, 3 * 10)
    found = reference(
        "rope", x, n_head=3, n_rot=n_rot, style=style, inv_freq=inv_freq, mscale=1.2, step=make_step([0] * 4, positions)
    )
    expected = naive.rope(x, positions, 3, n_rot, style, inv_freq, 1.2)
    # At position 1000 the float32 angle itself is off by up to 3e-5 radians; that is part of the definition.
    assert_close(found[:3], expected[:3])
    assert np.abs(found[3] - expected[3]).max() < 3e-4


@pytest.mark.parametrize("window", [0, 1, 4, PAGE + 3])
@pytest.mark.parametrize("softcap", [0.0, 1.5])
@pytest.mark.parametrize(("n_head", "n_head_kv"), [(6, 2), (3, 3), (5, 1)])
def test_attention(window: int, softcap: float, n_head: int, n_head_kv: int) -> None:
    """Two sequences over three steps that cut across pages; keys and values have different dims."""
    key_dim, value_dim, scale = 4, 7, 0.6
    lengths = (PAGE + 9, 11)
    kv = KVPool([KVSpec(2, n_head_kv, key_dim, value_dim, window)], 5, np.float32)
    pages = [[3, 0], [1, -1]]
    q, k, v = (
        [draw(n, heads * dim, seed=seed + s) * 2 for s, n in enumerate(lengths)]
        for seed, heads, dim in ((0, n_head, key_dim), (10, n_head_kv, key_dim), (20, n_head_kv, value_dim))
    )
    attrs = {"layer": 2, "n_head": n_head, "n_head_kv": n_head_kv, "key_dim": key_dim, "value_dim": value_dim}
    attrs |= {"scale": scale, "window": window, "softcap": softcap}
    done = [0, 0]
    for chunk in ((PAGE - 1, 3), (1, 0), (9, 8)):
        where = [(s, done[s] + i) for s, n in enumerate(chunk) for i in range(n)]
        step = make_step([0] * len(where), [p for _, p in where], [s for s, _ in where], pages)
        inputs = [np.stack([array[s][p] for s, p in where]) for array in (q, k, v)]
        found = reference("attention", *inputs, **attrs, step=step, kv=kv)
        history = [list(zip(k[s], v[s], strict=True)) for s in range(2)]
        args = (n_head, n_head_kv, scale, window, softcap)
        assert_close(found, [naive.attention(q[s][p], history[s][: p + 1], *args) for s, p in where])
        done = [a + b for a, b in zip(done, chunk, strict=True)]
    assert done == list(lengths)


def test_attention_over_whole_texts() -> None:
    """Two texts in one step, one of them longer than a page: each token sees all of its own text."""
    n_head, n_head_kv, key_dim, value_dim, lengths = 6, 2, 4, 7, (PAGE + 9, 11)
    kv = KVPool([KVSpec(2, n_head_kv, key_dim, value_dim)], 5, np.float32)
    step = make_step(
        [0] * sum(lengths), [*range(lengths[0]), *range(lengths[1])], np.repeat([0, 1], lengths), [[3, 0], [1, -1]]
    )
    q, k, v = (draw(sum(lengths), n, seed=n) for n in (n_head * key_dim, n_head_kv * key_dim, n_head_kv * value_dim))
    attrs = {"layer": 2, "n_head": n_head, "n_head_kv": n_head_kv, "key_dim": key_dim, "value_dim": value_dim}
    found = reference("attention", q, k, v, **attrs, scale=0.6, causal=False, step=step, kv=kv)
    texts = (slice(0, lengths[0]), slice(lengths[0], None))
    histories = [list(zip(k[text], v[text], strict=True)) for text in texts]
    args = (n_head, n_head_kv, 0.6, 0, 0.0)
    expected = [naive.attention(row, histories[s], *args) for row, s in zip(q, step.sequence, strict=True)]
    assert_close(found, expected)


def test_attention_stores_in_the_dtype_of_the_pool() -> None:
    kv, x = KVPool([KVSpec(0, 1, 4, 4)], 1, np.float16), draw(1, 4) / 3
    attrs = {"layer": 0, "n_head": 1, "n_head_kv": 1, "key_dim": 4, "value_dim": 4, "scale": 1.0}
    found = reference("attention", x, x, x, **attrs, step=make_step([0], [0]), kv=kv)
    assert found.tolist() == x.astype(np.float16).astype(np.float32).tolist() != x.tolist()


def test_attention_needs_no_pages_behind_the_window() -> None:
    """Pages that no token can see any more may be taken away: their entry is -1."""
    spec, window = KVSpec(0, 1, 4, 4, 5), 5
    attrs = {"layer": 0, "n_head": 2, "n_head_kv": 1, "key_dim": 4, "value_dim": 4, "scale": 0.7, "window": window}
    n, results = 2 * PAGE + 8, []
    q, k, v = draw(n, 8), draw(n, 4, seed=1), draw(n, 4, seed=2)
    for last_table in ([[2, 0, 1]], [[-1, -1, 1]]):
        kv = KVPool([spec], 3, np.float32)
        head = make_step([0] * (n - 1), range(n - 1), pages=[[2, 0, 1]])
        reference("attention", q[:-1], k[:-1], v[:-1], **attrs, step=head, kv=kv)
        tail = make_step([0], [n - 1], pages=last_table)
        results.append(reference("attention", q[-1:], k[-1:], v[-1:], **attrs, step=tail, kv=kv).tolist())
    assert results[0] == results[1]


@pytest.mark.parametrize("normalize", [True, False])
def test_moe_route(normalize: bool) -> None:
    logits = draw(5, 7)
    logits[2] = 0.5  # a tie of all
    ids, weights = reference("moe_route", logits, n_used=3, gating="softmax", normalize=normalize, scale=1.3)
    expected_ids, expected = naive.moe_route(logits, 3, normalize, 1.3)
    assert ids.dtype == np.int32
    assert ids.tolist() == expected_ids
    assert_close(weights, expected)


@pytest.mark.parametrize("repeated", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_expert_linear(repeated: bool, biased: bool) -> None:
    ids = np.array([[4, 0, 2], [2, 1, 4]], np.int32)
    x, weight, bias = draw(6 if repeated else 2, 7), draw(5, 4, 7), draw(5, 4) if biased else None
    assert_close(
        reference("expert_linear", x, ids, weight=weight, bias=bias), naive.expert_linear(x, ids, weight, bias)
    )


def test_expert_combine() -> None:
    y, weights = draw(6, 5), draw(2, 3)
    assert_close(reference("expert_combine", y, weights), naive.expert_combine(y, weights))


@pytest.mark.parametrize("biased", [True, False])
def test_linear_add(biased: bool) -> None:
    x, residual, weight, bias = draw(4, 7), draw(4, 5), draw(5, 7), draw(5) if biased else None
    found = reference("linear_add", x, residual, weight=weight, bias=bias)
    assert_close(found, naive.linear_add(x, residual, weight, bias))


@pytest.mark.parametrize("act", ["silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("biased", [True, False])
def test_linear_glu(act: str, biased: bool) -> None:
    x, gate, up = draw(4, 7), draw(5, 7, seed=1), draw(5, 7, seed=2)
    biases = (draw(5, seed=3), draw(5, seed=4) if biased else None)
    found = reference("linear_glu", x, gate=gate, up=up, gate_bias=biases[0], up_bias=biases[1], act=act)
    assert_close(found, naive.linear_glu(x, gate, up, *biases, act))


def test_every_op_has_a_twin_here() -> None:
    tested = {"add", "scale", "softcap", "take_rows", "activation", "glu"}  # those whose twin is one expression
    assert tested | {name for name in OPS if hasattr(naive, name)} == set(OPS)


CHECKS: dict[str, Callable[[], None]] = {
    "embed": lambda: test_embed("tokens", [4, 0, 6, 4]),
    "rms_norm": lambda: test_rms_norm(3, True),
    "layer_norm": test_layer_norm,
    "linear": lambda: test_linear(True),
    "linear_add": lambda: test_linear_add(True),
    "linear_glu": lambda: test_linear_glu("silu", True),
    "add": test_add_and_scale,
    "scale": test_add_and_scale,
    "activation": lambda: test_activations("silu"),
    "glu": lambda: test_activations("gelu"),
    "softcap": test_softcap,
    "take_rows": test_take_rows,
    "rope": lambda: test_rope("norm", 6),
    "attention": lambda: test_attention(4, 1.5, 6, 2),
    "moe_route": lambda: test_moe_route(True),
    "expert_linear": lambda: test_expert_linear(True, True),
    "expert_combine": test_expert_combine,
}


@pytest.mark.parametrize("name", OPS)
def test_a_planted_fault_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every comparison above must be able to fail: here each op is wrong by one part in ten thousand."""

    def broken(*args: Any, **keywords: Any) -> Any:
        result = OPS[name].reference(*args, **keywords)
        return (result[0], wrong(result[1])) if isinstance(result, tuple) else wrong(result)

    def wrong(result: NDArray[np.float32]) -> NDArray[np.float32]:
        return result * np.float32(1.0001)

    CHECKS[name]()
    real = reference
    monkeypatch.setitem(
        globals(), "reference", lambda op, *a, **k: (broken if op == name else partial(real, op))(*a, **k)
    )
    with pytest.raises(AssertionError):
        CHECKS[name]()
