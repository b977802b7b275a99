"""The state of one sequence of tokens while the engine works on it. State only: no policy, no arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .request import Request


@dataclass(eq=False)
class Sequence:
    """Tokens known so far, and the handle of their state in the cache (None while waiting).

    tokens      prompt, then what was generated; grows by one per decode step
    every_row   logits of every token are wanted, not only of the last: no state of others can be shared then
    number      order of arrival: lower numbers are served first and preempted last
    """

    tokens: list[int]
    owner: Request
    every_row: bool = False
    number: int = 0
    handle: Any = None
    n_shared: int | None = None  # tokens found in the cache when it was first admitted
    n_prompt: int = 0  # tokens given, not generated

    def __post_init__(self) -> None:
        self.n_prompt = len(self.tokens)

    @property
    def n_done(self) -> int:
        """Tokens whose state is in the cache."""
        handle = self.handle  # read once: other threads ask too
        return handle.length if handle is not None else 0

    @property
    def n_left(self) -> int:
        """Given tokens to be run."""
        return self.n_prompt - self.n_done

    @property
    def is_decoding(self) -> bool:
        """Whether what is left was generated: one token, or several of a sequence that starts over, one by one again.

        Kernels of prompts would round them in another way.
        """
        return self.n_done >= self.n_prompt


@dataclass(frozen=True)
class Chunk:
    """A run of consecutive tokens of one sequence within a step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.count

    @property
    def is_prompt(self) -> bool:
        """Whether these are given tokens."""
        return self.start < self.sequence.n_prompt

    @property
    def n_outputs(self) -> int:
        """Rows of logits wanted from this chunk."""
        if self.sequence.every_row:
            return self.count
        return 1 if self.stop == len(self.sequence.tokens) else 0
