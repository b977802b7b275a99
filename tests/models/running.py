"""Drive an executor in tests: whole prompts, chunks, and several sequences at once, on scattered pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from halfbyte.runtime.backends.base import Executor
from halfbyte.runtime.step import PAGE, Step
from numpy.typing import NDArray

N_PAGES = 9


def page_table(n_sequences: int, seed: int = 5) -> NDArray[np.int32]:
    """Page tables that share nothing and are in no order."""
    pages = np.random.default_rng(seed).permutation(N_PAGES).astype(np.int32)
    return pages[: N_PAGES // n_sequences * n_sequences].reshape(n_sequences, -1)


def step(
    chunks: Sequence[tuple[int, int, NDArray[np.int32]]], pages: NDArray[np.int32], outputs: Sequence[int]
) -> Step:
    """A step of (sequence, first position, tokens) chunks."""
    sequence = np.concatenate([np.full(len(tokens), s) for s, _, tokens in chunks])
    positions = np.concatenate([np.arange(first, first + len(tokens)) for _, first, tokens in chunks])
    arrays = (np.concatenate([tokens for _, _, tokens in chunks]), positions, sequence, pages, np.array(outputs))
    assert positions.max() < pages.shape[1] * PAGE
    return Step(*(np.asarray(array, np.int32) for array in arrays))


def run_in_chunks(executor: Executor, tokens: NDArray[np.int32], sizes: Sequence[int]) -> NDArray[np.float32]:
    """Logits of every token, computed in steps of the given sizes."""
    assert sum(sizes) == len(tokens)
    pages, position, logits = page_table(1), 0, []
    for size in sizes:
        chunk = tokens[position : position + size]
        one = replace(step([(0, position, chunk)], pages, range(size)), is_prompt=size > 1)
        logits.append(executor.run(one).copy())
        position += size
    return np.concatenate(logits)


def prefill(executor: Executor, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """Logits of every token, computed in one step."""
    return run_in_chunks(executor, tokens, [len(tokens)])


def distance(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Largest difference, relative to the largest logit. A NaN anywhere makes it NaN, which is below no tolerance."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / np.abs(expected).max())
