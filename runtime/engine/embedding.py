"""Vectors of texts: each text is one piece of a step, and its rows are pooled on the engine thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import Cancelled
from ..backends.base import CancelFlag
from .engine import Engine
from .request import End, Request
from .sequence import Chunk

F32 = NDArray[np.float32]

# Rows of one text, float32 [tokens, n_embd], to those of its embedding. What is kept is a copy: rows live for one step.
POOLINGS: dict[str, Callable[[F32], F32]] = {
    "mean": lambda rows: rows.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32),
    "cls": lambda rows: rows[:1].copy(),
    "last": lambda rows: rows[-1:].copy(),
    "none": lambda rows: rows.copy(),
}


class EmbedRequest(Request):
    """Runs one text and keeps its embedding: one row, or one a token where nothing is pooled."""

    def __init__(self, tokens: list[int], pooling: str, *, cancel: CancelFlag | None = None) -> None:
        super().__init__(tokens, every_row=True, cancel=cancel)
        self._pool = POOLINGS[pooling]

    def take(self, chunk: Chunk, rows: F32) -> None:
        """The whole text was run."""
        self.put(self._pool(rows))
        self.finish(End("stop"))


def embed(engine: Engine, texts: Sequence[list[int]], pooling: str, *, cancel: CancelFlag | None) -> list[F32]:
    """The embedding of each text, in order. All are submitted at once, so that short ones share steps.

    Raises what a request ends with, and Cancelled; the others are cancelled then.
    """
    requests = [EmbedRequest(tokens, pooling, cancel=cancel) for tokens in texts]
    try:
        for request in requests:
            engine.submit(request, len(request.sequence.tokens))
        return [_result(request) for request in requests]
    finally:
        for request in requests:  # harmless for those that have ended
            request.cancel()


def normalized(rows: F32) -> F32:
    """Rows of length 1; one of zeros stays as it is."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    lengths[lengths == 0] = 1
    units: F32 = rows / lengths
    return units


def _result(request: EmbedRequest) -> F32:
    event = request.next_event()
    if not isinstance(event, End):
        rows: F32 = event
        return rows
    if event.error is not None:
        raise event.error
    raise Cancelled("the computation of embeddings was cancelled")
