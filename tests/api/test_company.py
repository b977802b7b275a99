"""No text depends on who else is served, or was before, to the last bit of a log probability.

That is what compiled kernels promise. NumPy's products round in another way with another number of rows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from halfbyte import Model

from ..switches import needs_kernels

pytestmark = needs_kernels
PROMPTS = ("The dog", "A cat", "Tom")
Answer = tuple[str, list[float | None]]


def load() -> Model:
    """With room for one text of full length."""
    return Model.load("stories260k", threads=2, context=256, parallel=1)


@pytest.fixture
def fresh() -> Iterator[Model]:
    """A model that has served nobody."""
    with load() as model:
        yield model


def answer(model: Model, prompt: str | list[int], max_tokens: int = 40, **options: float) -> Answer:
    generation = model.generate(prompt, max_tokens=max_tokens, logprobs=1, **{"temperature": 0, **options})
    return generation.read(), [token.logprob for token in generation.tokens]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 3}])
def test_a_text_that_the_model_wrote_is_continued_like_any_other(fresh: Model, options: dict[str, float]) -> None:
    with load() as author:
        written = author.generate("Once upon a time", max_tokens=70, temperature=0)
        written.read()
        text = [*author.tokenize("Once upon a time"), *written.ids]
        assert answer(author, text, **options) == answer(fresh, text, **options)


def test_a_text_does_not_tell_that_it_was_interrupted(fresh: Model) -> None:
    found: dict[str, Answer] = {}
    with load() as busy:
        threads = [threading.Thread(target=lambda p=p: found.update({p: answer(busy, p, 180)})) for p in PROMPTS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert busy.stats().num_preempted
    for prompt in PROMPTS:
        assert found[prompt] == answer(fresh, prompt, 180)


def test_an_answer_in_a_session_is_the_one_to_the_same_messages(fresh: Model) -> None:
    with load() as model:
        session = model.session()
        for question in ("Tell me a story", "More"):
            said = session.send(question, max_tokens=30, temperature=0).read()
            assert said == fresh.chat(session.messages[:-1], max_tokens=30, temperature=0).read()
