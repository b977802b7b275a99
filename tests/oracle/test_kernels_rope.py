"""rope against float64 arithmetic on the float32 angle, at positions up to 131071."""

from __future__ import annotations

import numpy as np
import pytest
from halfbyte.runtime.backends.cpu.args import rope_scratch_bytes
from halfbyte.runtime.ops import OPS
from halfbyte.runtime.step import Step
from numpy.typing import NDArray

from tests.kernel_harness import call
from tests.tolerances import ROPE


def naive_rope(
    x: NDArray[np.float32],
    positions: NDArray[np.int32],
    n_head: int,
    n_rot: int,
    neox: int,
    freq: NDArray,
    mscale: float,
) -> NDArray[np.float64]:
    heads = x.astype(np.float64).reshape(len(x), n_head, -1)
    angle = (positions.astype(np.float32)[:, None] * freq).astype(np.float64)[:, None]
    pairs = [(i, i + n_rot // 2) if neox else (2 * i, 2 * i + 1) for i in range(n_rot // 2)]
    first, second = (list(side) for side in zip(*pairs, strict=True))
    turned = (heads[..., first] + 1j * heads[..., second]) * np.exp(1j * angle) * mscale
    out = heads.copy()
    out[..., first], out[..., second] = turned.real, turned.imag
    return out.reshape(x.shape)


@pytest.mark.parametrize("tokens", [1, 2, 7, 33, 70])
@pytest.mark.parametrize("neox", [0, 1])
@pytest.mark.parametrize(
    ("n_head", "head_dim", "n_rot"), [(3, 64, 64), (5, 80, 34), (1, 24, 24), (2, 7, 2), (9, 96, 80)]
)
def test_rope(n_head: int, head_dim: int, n_rot: int, neox: int, tokens: int) -> None:
    rng = np.random.default_rng([tokens, n_head])
    positions = rng.integers(0, 131072, tokens).astype(np.int32)
    positions[-1] = 131071
    freq = (10000.0 ** -(np.arange(n_rot // 2) / (n_rot // 2))).astype(np.float32)
    for nth, in_place in ((1, False), (2, True), (3, False), (5, True)):
        x = rng.standard_normal((tokens, n_head * head_dim)).astype(np.float32)
        expected = naive_rope(x, positions, n_head, n_rot, neox, freq, 1.25)
        out = x if in_place else np.full_like(x, np.nan)
        call(
            "rope", nth=nth, tokens=tokens, step={"positions": positions, "n_tokens": tokens}, x=x, out=out,
            scratch=rope_scratch_bytes(n_rot), inv_freq=freq, mscale=1.25, n_head=n_head, head_dim=head_dim,
            n_rot=n_rot, neox=neox,
        )  # fmt: skip
        assert np.abs(out - expected).max() <= ROPE * 1.25 * 4.5, (nth, in_place)  # pairs are shorter than 4.5


@pytest.mark.parametrize(("style", "neox"), [("norm", 0), ("neox", 1)])
def test_the_op_means_the_same(style: str, neox: int) -> None:
    rng, positions = np.random.default_rng(4), np.array([0, 3, 2047], np.int32)
    x, freq = rng.standard_normal((3, 2 * 40)).astype(np.float32), np.linspace(1, 0.01, 16).astype(np.float32)
    empty = np.zeros(0, np.int32)
    step = Step(empty, positions, empty, empty.reshape(0, 1), empty)
    expected = OPS["rope"].reference(x, n_head=2, n_rot=32, style=style, inv_freq=freq, mscale=0.7, step=step)
    out = np.empty_like(x)
    call(
        "rope", tokens=3, step={"positions": positions}, x=x, out=out, inv_freq=freq, mscale=0.7, n_head=2, head_dim=40,
        n_rot=32, neox=neox,
    )  # fmt: skip
    assert np.abs(out - expected).max() <= 2 * ROPE * 4.5
