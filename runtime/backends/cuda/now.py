"""What launches of one step depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Now:
    """A step, as the launches of a program see it: two that are equal here have the same launches."""

    n_tokens: int
    n_outputs: int
    n_sequences: int
    n_tiles: tuple[tuple[tuple[int, bool], int], ...]  # of tiles of so many tokens at most, causal or not
    stream: Any

    def tiles(self, tokens: int, causal: bool) -> int:
        found: int = dict(self.n_tiles)[tokens, causal]
        return found
