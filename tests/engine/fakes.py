"""An executor without a model: it checks the cache protocol, can be slow, can fail, and can be cancelled."""

from __future__ import annotations

import threading
import time

import numpy as np
from halfbyte.formats.errors import Cancelled
from halfbyte.runtime.backends.base import CancelFlag
from halfbyte.runtime.engine.engine import Engine
from halfbyte.runtime.engine.request import End, Request
from halfbyte.runtime.step import PAGE, Step

VOCAB = 97


class FakePool:
    """Pages of token ids instead of keys and values."""

    def __init__(self, n_pages: int) -> None:
        self.n_pages = n_pages
        self.pages = np.full((n_pages, PAGE), -1, np.int64)

    def copy_page(self, source: int, target: int) -> None:
        self.pages[target] = self.pages[source]


class FakeExecutor:
    """Logits depend on all tokens of a sequence as read from its pages: a wrong page table shows in the result."""

    def __init__(self, n_pages: int = 64, max_tokens: int = 64, seconds_per_token: float = 0.0) -> None:
        self.kv, self.max_tokens, self.seconds_per_token = FakePool(n_pages), max_tokens, seconds_per_token
        self.steps: list[Step] = []
        self.fail_next: Exception | None = None
        self.num_cancelled = 0
        self.is_closed = False
        self.running = threading.Event()

    def run(self, step: Step, cancel: CancelFlag | None = None) -> np.ndarray:
        assert not self.is_closed
        self.running.set()
        self.steps.append(step)
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        self._work(step.n_tokens, cancel)
        for token, position, row in zip(step.tokens, step.positions, step.sequence, strict=True):
            self.kv.pages[step.pages[row, position // PAGE], position % PAGE] = token
        return np.stack([self._logits(step, i) for i in step.outputs]) if len(step.outputs) else np.empty((0, VOCAB))

    def _work(self, n_tokens: int, cancel: CancelFlag | None) -> None:
        end = time.perf_counter() + n_tokens * self.seconds_per_token
        while True:
            if cancel:
                self.num_cancelled += 1
                raise Cancelled("cancelled between two operations of a step")
            if time.perf_counter() >= end:
                return
            time.sleep(0.001)

    def _logits(self, step: Step, row: int) -> np.ndarray:
        length = int(step.positions[row]) + 1
        pages = step.pages[step.sequence[row]]
        tokens = self.kv.pages[pages[: -(-length // PAGE)]].reshape(-1)[:length]
        logits = np.zeros(VOCAB, np.float32)
        logits[next_token(tokens.tolist())] = 1.0
        return logits

    def close(self) -> None:
        self.is_closed = True


def next_token(tokens: list[int]) -> int:
    """What the fake model says after `tokens`: a hash of all of them."""
    value = 7
    for token in tokens:
        value = (value * 31 + token + 1) % 1_000_003
    return value % VOCAB


def continuation(prompt: list[int], count: int) -> list[int]:
    """The only right answer to a prompt."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


class Greedy(Request):
    """Takes the likeliest token, `count` times."""

    def __init__(self, tokens: list[int], count: int) -> None:
        super().__init__(list(tokens))
        self.count = count
        self.taken = 0

    def take(self, chunk, rows) -> None:
        token = int(rows[-1].argmax())
        self.sequence.tokens.append(token)
        self.taken += 1
        self.put(token)
        if self.taken == self.count:
            self.finish(End("length"))

    def read(self) -> list[int]:
        """All tokens; raises what the request failed with."""
        tokens = []
        while not isinstance(event := self.next_event(), End):
            tokens.append(event)
        if event.error is not None:
            raise event.error
        return tokens


def start(engine: Engine, tokens: list[int], count: int) -> Greedy:
    request = Greedy(tokens, count)
    engine.submit(request, len(tokens) + count)
    return request
