"""Tokens per second: what is run and how the numbers are made. Printing is elsewhere."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..formats.errors import HalfbyteError

if TYPE_CHECKING:
    from ..runtime.engine.generation import Usage
    from ..runtime.model import Model

SEED = 20240229  # any fixed number: the same tokens in every run
BANNED = -1e9  # added to the logits of tokens that would end the text early


@dataclass
class Speeds:
    """Tokens per second of each repetition; the medians are the result."""

    prompt: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)

    @property
    def prompt_tps(self) -> float:
        return statistics.median(self.prompt)

    @property
    def decode_tps(self) -> float:
        return statistics.median(self.decode)

    def add(self, usage: Usage) -> None:
        """Count one run. Its prompt must not have come from the cache."""
        if usage.cached_tokens:
            raise HalfbyteError(f"{usage.cached_tokens} tokens came from the cache: this is no measurement")
        self.prompt.append(usage.prompt_tokens / usage.prompt_seconds if usage.prompt_seconds > 0 else 0.0)
        self.decode.append(usage.tokens_per_second)


def measure(
    model: Model, *, prompt_tokens: int, gen_tokens: int, repeat: int, on_run: Callable[[int], None] = lambda _: None
) -> Speeds:
    """Run `repeat` times after one warm-up that is not counted.

    Every run gets other random tokens: with the same ones the prompt would be found in the cache. One more token than
    `gen_tokens` is generated, because the first belongs to the prompt's time.
    """
    speeds = Speeds()
    for number, usage in runs(model, prompt_tokens=prompt_tokens, gen_tokens=gen_tokens, repeat=repeat):
        if number:
            speeds.add(usage)
        on_run(number)
    return speeds


def runs(model: Model, *, prompt_tokens: int, gen_tokens: int, repeat: int) -> Iterator[tuple[int, Usage]]:
    """The runs of `measure`: number 0 is the warm-up."""
    source = random.Random(SEED)
    for number in range(repeat + 1):
        prompt = [source.randrange(model.vocab_size) for _ in range(prompt_tokens)]
        yield number, _run_once(model, prompt, gen_tokens + 1)


def _run_once(model: Model, prompt: list[int], n_tokens: int) -> Usage:
    ends = dict.fromkeys(model.tokenizer.eog_ids, BANNED)
    generation = model.generate(prompt, max_tokens=n_tokens, temperature=0, logit_bias=ends)
    generation.read()
    return generation.usage
