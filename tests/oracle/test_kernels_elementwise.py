"""Norms, element-by-element kernels and take_rows against float64 twins and the references of the ops."""

from __future__ import annotations

from collections.abc import Callable
from math import erf, pi, sqrt
from typing import Any

import numpy as np
import pytest
from halfbyte.runtime.ops import OPS
from numpy.typing import NDArray

from tests.kernel_harness import call
from tests.tolerances import ACTIVATION, ELEMENT, ERF, LAYER_NORM, NORM

TOKENS, THREADS = [1, 2, 7, 33, 70], [1, 2, 3, 5]
Array = NDArray[np.float64]

ACTS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(erf)(x / sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))),
}


def draw(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def run(name: str, x: NDArray[np.float32], nth: int, /, **arguments: Any) -> NDArray[np.float32]:
    """The kernel on all rows of x, with a canary after the result."""
    out = np.full(x.size + 16, 77, np.float32)
    call(name, nth=nth, tokens=len(x), out=out, cols=x.shape[1], repeat=1, **arguments)
    assert (out[x.size :] == 77).all(), "wrote past its result"
    return out[: x.size].reshape(x.shape)


def assert_close(found: NDArray, expected: Array, tolerance: float, scale: Any = None) -> None:
    bound = tolerance * (np.abs(expected) if scale is None else scale) + 1e-37
    assert (np.abs(found - expected) <= bound).all(), float((np.abs(found - expected) / bound).max())


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("heads", "cols"), [(1, 173), (3, 3 * 64), (5, 5 * 7)])
def test_rms_norm(heads: int, cols: int, weighted: bool, tokens: int) -> None:
    x, weight = draw(tokens, cols) * 3, draw(cols // heads, seed=1)
    x[0] *= 1e-3  # here eps decides
    wide = x.astype(np.float64).reshape(tokens, heads, -1)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * (weight if weighted else 1)
    for nth in THREADS:
        found = run("rms_norm", x, nth, x=x, weight=weight if weighted else 0, eps=1e-5, heads=heads)
        assert_close(found, expected.reshape(x.shape), NORM, 4.0)
    op = OPS["rms_norm"].reference(x, weight=weight if weighted else None, eps=1e-5, heads=heads)
    assert_close(found, op, 2 * NORM, 4.0)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("biased", [True, False])
def test_layer_norm(biased: bool, tokens: int) -> None:
    x, weight, bias = draw(tokens, 173) * 3 + 2, draw(173, seed=1), draw(173, seed=2)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3) * weight + (bias if biased else 0)
    for nth in THREADS:
        found = run("layer_norm", x, nth, x=x, weight=weight, bias=bias if biased else 0, eps=1e-3)
        assert_close(found, expected, LAYER_NORM, 4.0)
    if biased:
        assert_close(found, OPS["layer_norm"].reference(x, weight=weight, bias=bias, eps=1e-3), 2 * LAYER_NORM, 4.0)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("act", ACTS)
def test_activation_and_glu(act: str, tokens: int) -> None:
    x, up = draw(tokens, 53) * 4, draw(tokens, 53, seed=1)
    wide, scale = x.astype(np.float64), np.abs(x)
    if act in ("sigmoid", "silu"):
        scale = np.abs(ACTS[act](wide))
    tolerance = ERF if act == "gelu" else ACTIVATION
    for nth in THREADS:
        assert_close(run(f"activation.{act}", x, nth, x=x), ACTS[act](wide), tolerance, scale)
        found = run(f"glu.{act}", x, nth, gate=x, up=up)
        assert_close(found, ACTS[act](wide) * up, tolerance + ELEMENT, scale * np.abs(up))
    assert np.allclose(found, OPS["glu"].reference(x, up, act=act), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("act", ACTS)
def test_activations_have_limits(act: str) -> None:
    x = np.array([[-3e38, -1e4, -0.0, 0.0, 1e4, 3e38, np.nan, 1.0]], np.float32)
    found = run(f"activation.{act}", x, 1, x=x)[0]
    limits = [0, 0, 0.5, 0.5, 1, 1] if act == "sigmoid" else [0, 0, 0, 0, 1e4, np.float32(3e38)]
    assert found[:6].tolist() == limits
    assert np.isnan(found[6])


@pytest.mark.parametrize("tokens", TOKENS)
def test_softcap(tokens: int) -> None:
    x = draw(tokens, 53) * np.logspace(-3, 3, 53, dtype=np.float32)
    expected = 7.5 * np.tanh(x.astype(np.float64) / 7.5)
    for nth in THREADS:
        assert_close(run("softcap", x, nth, x=x, cap=7.5), expected, ACTIVATION)
    assert np.allclose(OPS["softcap"].reference(x, cap=7.5), expected, rtol=1e-6)


@pytest.mark.parametrize("tokens", TOKENS)
def test_add_and_scale(tokens: int) -> None:
    x, y = draw(tokens, 53), draw(tokens, 53, seed=1)
    for nth in THREADS:
        assert (run("add", x, nth, x=x, y=y) == OPS["add"].reference(x, y)).all()
        assert (run("scale", x, nth, x=x, factor=0.3) == OPS["scale"].reference(x, factor=0.3)).all()


@pytest.mark.parametrize("name", ["add", "rms_norm"])
def test_rows_are_outputs_times_repeat(name: str) -> None:
    """on_outputs and repeat decide how many rows there are, not the tokens of the step."""
    x = draw(6, 5)
    out = np.full((7, 5), 77, np.float32)
    arguments = {"y": x} if name == "add" else {"weight": 0, "eps": 1e-5, "heads": 1}
    step = {"n_tokens": 11, "n_outputs": 3}
    call(name, nth=2, step=step, x=x, out=out, cols=5, repeat=2, on_outputs=1, **arguments)
    assert (out[6] == 77).all()
    assert (out[:6] != 77).all()


@pytest.mark.parametrize("nth", THREADS)
@pytest.mark.parametrize("outputs", [[], [6], [0, 2, 5, 6], list(range(7))])
def test_take_rows(outputs: list[int], nth: int) -> None:
    x, out = draw(7, 53), np.full((8, 53), 77, np.float32)
    rows = np.array(outputs, np.int32)
    call("take_rows", nth=nth, tokens=7, step={"outputs": rows, "n_outputs": len(rows)}, x=x, out=out, cols=53)
    assert (out[: len(rows)] == x[rows]).all()
    assert (out[len(rows) :] == 77).all()
