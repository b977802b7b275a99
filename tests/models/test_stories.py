"""A real, trained model on the reference backend: greedy tokens, logits and likelihood are those of transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import halfbyte
import numpy as np
import pytest
from halfbyte.formats.gguf import GGUFFile
from halfbyte.runtime.backends.reference import ReferenceBackend, ReferenceExecutor
from halfbyte.runtime.models import build_model

from .running import N_PAGES, page_table, prefill, step

MODEL = Path(halfbyte.__file__).parent / "runtime/assets/stories260k.gguf"
EXPECTED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "fixtures/stories260k_expected.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def executor() -> Iterator[ReferenceExecutor]:
    with GGUFFile.open(MODEL) as file:
        yield ReferenceBackend().compile(build_model(file).graph, n_pages=N_PAGES, max_tokens=128)


@pytest.fixture(params=EXPECTED, ids=lambda entry: entry["prompt"])
def entry(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def test_greedy_continuation(executor: ReferenceExecutor, entry: dict[str, Any]) -> None:
    prompt, pages = np.array(entry["ids"], np.int32), page_table(1)
    logits = executor.run(step([(0, 0, prompt)], pages, [len(prompt) - 1]))
    greedy: list[int] = []
    while len(greedy) < len(entry["greedy"]):
        greedy.append(int(logits[0].argmax()))
        last = (0, len(prompt) + len(greedy) - 1, np.array(greedy[-1:], np.int32))
        logits = executor.run(step([last], pages, [0]))
    assert greedy == entry["greedy"]


def test_logits_after_the_prompt(executor: ReferenceExecutor, entry: dict[str, Any]) -> None:
    logits = prefill(executor, np.array(entry["ids"], np.int32))[-1, :8]
    assert np.abs(logits - entry["last_logits_first8"]).max() < 2e-5  # stored with five decimals


def test_mean_negative_log_likelihood(executor: ReferenceExecutor, entry: dict[str, Any]) -> None:
    tokens = np.array(entry["ids"] + entry["greedy"], np.int32)
    logits = prefill(executor, tokens)[:-1].astype(np.float64)
    chosen = logits[np.arange(len(logits)), tokens[1:]]
    top = logits.max(axis=-1)
    nll = np.log(np.exp(logits - top[:, None]).sum(axis=-1)) + top - chosen
    assert round(float(nll.mean()), 5) == pytest.approx(entry["nll_mean"], abs=1.1e-5)
