"""Each part of benchmarks.cuda, with shapes that take seconds: what it measures means nothing."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from halfbyte.runtime.backends.cuda.package import SIMULATED

from benchmarks import cuda, cuda_goals, cuda_kernels, cuda_models, cuda_parts, cuda_products, cuda_torch
from benchmarks.recipes import RECIPES
from benchmarks.shapes import Shape
from benchmarks.synthetic import write

WAYS = ("ROWS", "TILES", "TENSOR_CORES", "BLAS")
TINY = Shape(32, 32, 2, 1, 1, 259, context=64)


def written(folder: Path, layers: int) -> Path:
    path = folder / "tiny.gguf"
    write(path, replace(TINY, n_layer=layers), RECIPES["Q4_0"])
    return path


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tests' changes are."""
    monkeypatch.setattr(cuda, "run_apart", cuda_parts.run)


def measured(folder: Path, *options: str) -> dict[str, Any]:
    """What a run with these options stored."""
    cuda.main([*options, "--out", str(folder), "--prompt", "2", "--generated", "1", "--matrix", "3x256"])
    assert "## Goals" in (folder / "cuda.md").read_text() or "--only" in options
    found: dict[str, Any] = json.loads((folder / "cuda.json").read_text())
    assert "errors" not in found["results"], found["results"]["errors"]
    return found


def warm_up_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled in the simulator; a GPU needs its steps before one is recorded."""
    monkeypatch.setattr(cuda_models, "PROMPTS", 1)
    if SIMULATED:
        monkeypatch.setattr(cuda_models, "WARM", 0)


def test_kernels(tmp_path: Path) -> None:
    found = measured(tmp_path, "--only", "kernels", "--type", "Q4_0", "--type", "F16")
    results = found["results"]
    assert results["copies"]["seconds"] > 0 and results["kernel F16"]["seconds"] > 0
    assert [goal["what"] for goal in found["goals"]] == [cuda_goals.of_copies("Q4_0")]
    assert results["kernel Q4_0"]["how"] == ("simulated" if SIMULATED else "recorded")


def test_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_torch, "missing", lambda: "")
    monkeypatch.setattr(cuda_torch, "seconds", lambda n, cols, m: 1e-6)
    monkeypatch.setattr(cuda_products, "COUNTS", (1,))
    results = measured(tmp_path, "--only", "products", "--type", "Q4_0", "--type", "BF16")["results"]
    for m, name in itertools.product((1, 2), ("Q4_0", "BF16")):
        product = results[f"product of {m} {name}"]
        assert min(product["seconds"].values()) > 0 and product["torch"] == 1e-6
        if SIMULATED:
            assert product["seconds"].keys() == {getattr(cuda_kernels, way) for way in WAYS}


def test_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warm_up_less(monkeypatch)
    found = measured(tmp_path, "--only", "model", "--model", str(written(tmp_path, 1)))
    results = found["results"]["model"]
    assert results["launches"] == ("one by one: not in the simulator" if SIMULATED else "recorded")
    assert min(results["prompt_seconds"], results["token_seconds"], results["not_recorded_seconds"]) > 0
    goals = {goal["what"]: goal for goal in found["goals"]}
    assert goals.keys() == {cuda_goals.DECODE, cuda_goals.PROMPT}
    if cuda_torch.missing():
        assert goals[cuda_goals.PROMPT]["measured"].startswith("not measured: torch")
        assert "pip install" in goals[cuda_goals.PROMPT]["measured"]


def test_offload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warm_up_less(monkeypatch)
    monkeypatch.setattr(cuda_models, "IDS", (5, 6))
    found = measured(tmp_path, "--only", "offload", "--offloaded", str(written(tmp_path, 2)))
    assert all(found["results"][f"offload {count}"]["seconds"] > 0 for count in (0, 1, 2))
    goals = {goal["what"]: goal["met"] for goal in found["goals"]}
    assert goals.keys() == {cuda_goals.LOGITS, cuda_goals.TEXT, cuda_goals.FALLS}
    assert goals[cuda_goals.LOGITS]
