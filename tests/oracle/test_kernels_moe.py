"""moe_route and expert_combine against the references of the ops."""

from __future__ import annotations

import numpy as np
import pytest
from halfbyte.runtime.ops import OPS
from numpy.typing import NDArray

from tests.kernel_harness import call
from tests.tolerances import FLOAT32_SUM, PROBABILITY

TOKENS, THREADS = [1, 2, 7, 33, 70], [1, 2, 3, 5]


def route(
    logits: NDArray[np.float32], n_used: int, nth: int = 2, *, normalize: int = 0, factor: float = 1.0
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    tokens, n_expert = logits.shape
    ids, weights = np.full((tokens, n_used), -1, np.int32), np.full((tokens, n_used), np.nan, np.float32)
    call(
        "moe_route", nth=nth, tokens=tokens, logits=logits, ids=ids, weights=weights, n_expert=n_expert, n_used=n_used,
        normalize=normalize, factor=factor,
    )  # fmt: skip
    return ids, weights


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("normalize", [0, 1])
@pytest.mark.parametrize(("n_expert", "n_used"), [(8, 2), (61, 7), (16, 16), (128, 8), (3, 1)])
def test_route(n_expert: int, n_used: int, normalize: int, tokens: int) -> None:
    logits = (np.random.default_rng([tokens, n_expert]).standard_normal((tokens, n_expert)) * 3).astype(np.float32)
    for nth in THREADS:
        ids, weights = route(logits, n_used, nth, normalize=normalize, factor=1.5)
        expected = OPS["moe_route"].reference(logits, n_used=n_used, normalize=bool(normalize), scale=1.5)
        assert (ids == expected[0]).all()
        assert np.allclose(weights, expected[1], rtol=2 * PROBABILITY, atol=0)


def test_equal_logits_go_to_the_lower_index() -> None:
    logits = np.array([[1, 2, 2, 0, 2], [0, 0, 0, 0, 0], [-5, 3, -5, 3, -5]], np.float32)
    assert route(logits, 3)[0].tolist() == [[1, 2, 4], [0, 1, 2], [1, 3, 0]]


def test_logits_far_apart() -> None:
    """Probabilities that vanish: the order is still that of the logits, and weights are finite."""
    ids, weights = route(np.array([[-200.0, 500.0, -300.0, -100.0]], np.float32), 3, normalize=1)
    assert ids.tolist() == [[1, 3, 0]]
    assert weights.tolist() == [[1, 0, 0]]


def test_nan_gives_ids_that_exist() -> None:
    ids, _ = route(np.full((2, 5), np.nan, np.float32), 3)
    assert ((ids >= 0) & (ids < 5)).all()


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize(("n_used", "cols"), [(1, 3), (2, 100), (7, 53), (3, 64)])
def test_combine(n_used: int, cols: int, tokens: int) -> None:
    rng = np.random.default_rng([tokens, n_used])
    y = rng.standard_normal((tokens * n_used, cols)).astype(np.float32)
    weights = rng.standard_normal((tokens, n_used)).astype(np.float32)
    expected = OPS["expert_combine"].reference(y.astype(np.float64), weights.astype(np.float64))
    for nth in THREADS:
        out = np.full((tokens + 1, cols), 77, np.float32)
        call("expert_combine", nth=nth, tokens=tokens, y=y, weights=weights, out=out, n_used=n_used, cols=cols)
        worst = np.abs(y).reshape(tokens, n_used, cols).sum(1) * np.abs(weights).max()
        assert (np.abs(out[:-1] - expected) <= FLOAT32_SUM * worst).all()
        assert (out[-1] == 77).all()


def test_rows_of_outputs() -> None:
    """After take_rows there is a row per output, not per token."""
    y, weights = np.ones((6, 5), np.float32), np.ones((3, 2), np.float32)
    out = np.full((4, 5), 77, np.float32)
    step = {"n_tokens": 9, "n_outputs": 3}
    call("expert_combine", step=step, y=y, weights=weights, out=out, n_used=2, cols=5, on_outputs=1)
    assert (out[:3] == 2).all()
    assert (out[3] == 77).all()
