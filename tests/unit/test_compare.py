"""The arithmetic of `halfbyte compare`, against formulas written down a second time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from halfbyte.formats.errors import InvalidRequest
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter
from halfbyte.formats.quants import CODECS, decode
from halfbyte.tools import compare
from halfbyte.tools.compare import Errors, TextCost, by_kind, tensor_costs


def write(path: Path, tensors: dict[str, tuple[np.ndarray, GGMLType]]) -> Path:
    writer = GGUFWriter(path)
    writer.add("general.architecture", "llama")
    for name, (x, kind) in tensors.items():
        writer.add_tensor(name, x.shape, kind)
    with writer.open():
        for name, (x, kind) in tensors.items():
            writer.write_tensor(name, CODECS[kind].encode(x))
    return path


def test_errors_of_weights() -> None:
    x, y = np.float32([[3, -4, 0, 1], [0.5, 2, 2, -2]]), np.float32([[3, -3, 0, 1], [0.5, 2.5, 2, -1.5]])
    found = Errors()
    found.add(x, y, 4)
    d = (y - x).astype(np.float64)
    assert found.relative_rmse == pytest.approx(math.sqrt((d**2).sum() / (x**2).sum()))
    assert found.sqnr == pytest.approx(10 * math.log10((x**2).sum() / (d**2).sum()))
    assert found.cosine == pytest.approx((x * y).sum() / math.sqrt((x**2).sum() * (y**2).sum()))
    assert found.largest == 1
    assert found.clipped_share == 1 / 8  # -4 became -3; 2 is not above 2.5


def test_nothing_changed_and_nothing_there() -> None:
    x, same, zeros = np.ones((2, 32), np.float32), Errors(), Errors()
    same.add(x, x, 32)
    assert (same.relative_rmse, same.sqnr, same.clipped_share) == (0, math.inf, 0)
    assert same.cosine == pytest.approx(1)
    zeros.add(0 * x, 0 * x, 32)
    assert zeros.relative_rmse == 0 and math.isnan(zeros.cosine)
    zeros.add(0 * x, x, 32)
    assert zeros.relative_rmse == math.inf


def test_tensors_kinds_and_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x = {f"blk.{i}.ffn_up.weight": rng.standard_normal((5, 64)).astype(np.float32) for i in range(3)}
    x["output.weight"] = rng.standard_normal((7, 96)).astype(np.float32)
    one = write(tmp_path / "a.gguf", {name: (v, GGMLType.F32) for name, v in x.items()})
    two = write(tmp_path / "b.gguf", {name: (v, GGMLType.Q4_0) for name, v in x.items()})
    results = []
    for piece in (1 << 18, 100):
        monkeypatch.setattr(compare, "PIECE", piece)
        with GGUFFile.open(one) as a, GGUFFile.open(two) as b:
            results.append(list(tensor_costs(a, b)))
    assert [c.errors.relative_rmse for c in results[1]] == pytest.approx([c.errors.relative_rmse for c in results[0]])
    off = [decode(CODECS[GGMLType.Q4_0].encode(v), GGMLType.Q4_0) - v for v in x.values()]
    kinds = by_kind(results[0])
    assert list(kinds) == ["ffn_up", "", "output"]
    ups = sum((d.astype(np.float64) ** 2).sum() for d in off[:3]) / sum((v**2).sum() for v in list(x.values())[:3])
    assert kinds["ffn_up"][0].relative_rmse == pytest.approx(math.sqrt(ups), rel=1e-6)
    assert kinds[""][1] == {"Q4_0"}
    assert kinds[""][2] == sum(cost.n_bytes for cost in results[0])


def test_other_models_are_refused(tmp_path: Path) -> None:
    x = np.ones((2, 32), np.float32)
    one = write(tmp_path / "a.gguf", {"x": (x, GGMLType.F32)})
    for name, y, words in (("y", x, "only one has 'x'"), ("x", x[:1], "is .2, 32. in")):
        two = write(tmp_path / "b.gguf", {name: (y, GGMLType.F32)})
        with GGUFFile.open(one) as a, GGUFFile.open(two) as b, pytest.raises(InvalidRequest, match=words):
            list(tensor_costs(a, b))


def naive(first: np.ndarray, changed: np.ndarray, window: list[int]) -> list[tuple[float, float, float, bool]]:
    """(nll, nll of the changed model, KL, same top) of each scored token."""
    rows = []
    for i in range(len(window) // 2, len(window) - 1):
        p, q = (np.exp(v[i].astype(np.float64)) / np.exp(v[i].astype(np.float64)).sum() for v in (first, changed))
        target = window[i + 1]
        kl = float((p * np.log(p / q)).sum())
        rows.append((-math.log(p[target]), -math.log(q[target]), kl, bool(p.argmax() == q.argmax())))
    return rows


def test_predictions() -> None:
    rng, cost, rows = np.random.default_rng(2), TextCost(), []
    for length in (9, 70):
        window = rng.integers(0, 20, length).tolist()
        first = rng.standard_normal((length, 20)).astype(np.float32)
        changed = first + rng.standard_normal((length, 20)).astype(np.float32) / 4
        cost.add(first, changed, window)
        rows += naive(first, changed, window)
    nll, other, kl, same = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    found = cost.summary()
    assert found["tokens"] == len(rows)
    assert found["ppl_first"] == pytest.approx(math.exp(nll.mean()))
    assert found["ppl_changed"] == pytest.approx(math.exp(other.mean()))
    assert found["log_ppl_ratio"] == pytest.approx((other - nll).mean())
    assert found["log_ppl_ratio_error"] == pytest.approx((other - nll).std() / math.sqrt(len(rows) - 1))
    assert found["kl_mean"] == pytest.approx(kl.mean())
    assert found["kl_error"] == pytest.approx(error(kl))
    for name, share in (("kl_95", 0.95), ("kl_99", 0.99), ("kl_999", 0.999)):
        assert found[name] == pytest.approx(percentile(kl, share))
    assert found["kl_max"] == pytest.approx(kl.max())
    assert found["same_top"] == same.mean() and 0.3 < same.mean() < 1
    assert found["same_top_error"] == pytest.approx(math.sqrt(same.mean() * (1 - same.mean()) / (len(rows) - 1)))
    dp = np.exp(-other) - np.exp(-nll)
    assert (found["mean_dp"], found["mean_dp_error"]) == (pytest.approx(dp.mean()), pytest.approx(error(dp)))
    assert found["rms_dp"] == pytest.approx(math.sqrt((dp**2).mean()))
    assert found["rms_dp_error"] == pytest.approx(0.5 / found["rms_dp"] * error(dp**2))


def error(x: np.ndarray) -> float:
    """Of a mean, from the sums that llama-perplexity keeps."""
    n = len(x)
    return math.sqrt((sum(x * x) / n - (sum(x) / n) ** 2) / (n - 1))


def percentile(x: np.ndarray, fraction: float) -> float:
    """Between its neighbours, as llama-perplexity does it."""
    ordered, place = np.sort(x), fraction * (len(x) - 1)
    below = int(place)
    return ordered[below] + (place - below) * (ordered[min(below + 1, len(x) - 1)] - ordered[below])


def test_what_cannot_come_costs_nothing() -> None:
    """Logits of minus infinity forbid a token. Forbidding what the first model allows costs without end."""
    first, cost = np.zeros((4, 3), np.float32), TextCost()
    first[:, 2] = -np.inf
    changed = first.copy()
    changed[2, 1] = -1
    cost.add(first, changed, [0, 1, 0, 1])
    q = np.exp([0, -1]) / (1 + np.exp(-1))
    assert cost.summary()["kl_mean"] == pytest.approx(0.5 * np.log(0.5 / q).sum())
    changed[2, 1] = -np.inf
    cost = TextCost()
    cost.add(first, changed, [0, 1, 0, 0])
    assert cost.summary()["kl_mean"] == math.inf
    cost = TextCost()
    cost.add(first, np.full_like(first, np.nan), [0, 1, 0, 0])
    assert math.isnan(cost.summary()["kl_mean"])


def test_equal_predictions_cost_nothing() -> None:
    logits, cost = np.random.default_rng(3).standard_normal((8, 5)).astype(np.float32), TextCost()
    cost.add(logits, logits, [0, 1, 2, 3, 4, 0, 1, 2])
    found = cost.summary()
    assert (found["kl_mean"], found["log_ppl_ratio"], found["rms_dp"], found["same_top"]) == (0, 0, 0, 1)


def test_other_vocabularies_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="5 and 6 tokens"):
        TextCost().add(np.zeros((8, 5), np.float32), np.zeros((8, 6), np.float32), [0] * 8)


def test_nan_is_no_perfect_score() -> None:
    x, found = np.ones((2, 32), np.float32), Errors()
    found.add(x, np.where(np.arange(32) == 3, np.float32(np.nan), x), 32)
    assert all(math.isnan(v) for v in (found.relative_rmse, found.sqnr, found.cosine, found.largest))
    infinite = Errors()
    infinite.add(np.full((1, 32), np.inf, np.float32), x[:1], 32)
    assert not infinite.sqnr > 0
