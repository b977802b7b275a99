"""The public API on the backend it has when none is said: many threads, several models, another's text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from halfbyte import CancelFlag, Model

from ..switches import backend

THINGS = ("dog", "cat", "boy", "girl", "bird", "tree", "car", "ball")
PROMPTS = [
    *(f"{name} went to the {place} and" for name in ("Tom", "Lily", "Sam", "Anna") for place in ("park", "sea")),
    *(f"Once upon a time, there was a {thing} who" for thing in THINGS),
]


@pytest.fixture(scope="module")
def models() -> Iterator[list[Model]]:
    """Two models in one process, each with a team of its own."""
    loaded = [Model.load("stories260k", threads=n) for n in (1, 2)]
    assert {model.backend for model in loaded} == {backend()}
    yield loaded
    for model in loaded:
        model.close()


def greedy(model: Model, prompt: str) -> str:
    return model.generate(prompt, max_tokens=40, temperature=0).read()


def together(calls: list[Callable[[], str]]) -> list[str]:
    results: dict[int, str] = {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: calls[i]()})) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[i] for i in range(len(calls))]


def test_it_says_what_another_implementation_says(models, expected):
    for case in expected:
        generation = models[1].generate(case["prompt"], max_tokens=len(case["greedy"]), temperature=0)
        assert case["prompt"] + generation.read() == case["text"]


def test_float32_weights_give_the_logits_of_another_implementation(expected):
    """They are stored with five decimals."""
    with Model.load("stories260k") as model:
        for case in expected:
            generation = model.generate(case["prompt"], max_tokens=len(case["greedy"]), temperature=0)
            assert case["prompt"] + generation.read() == case["text"] and generation.ids == case["greedy"]
            logits = model.logits(case["ids"])[-1, :8]
            np.testing.assert_allclose(logits, case["last_logits_first8"], rtol=0, atol=2e-5)


def test_thirty_two_threads_on_two_models_get_the_text_each_gets_alone(models):
    alone = [greedy(model, prompt) for model in models for prompt in PROMPTS]
    assert together([lambda m=m, p=p: greedy(m, p) for m in models for p in PROMPTS]) == alone
    assert alone[:16] == alone[16:]  # one thread and two


def test_neighbours_that_cancel_change_nothing(models):
    model = models[1]
    alone = [greedy(model, prompt) for prompt in PROMPTS[:8]]

    def give_up(prompt: str) -> str:
        flag = CancelFlag()
        generation = model.generate(prompt * 9, cancel=flag)
        next(generation)
        flag.set()
        return generation.read()

    calls = [lambda p=p: greedy(model, p) for p in PROMPTS[:8]] + [lambda p=p: give_up(p) for p in PROMPTS[8:]]
    assert together(calls)[:8] == alone
