"""Arrays: turns the scheduler's chunks into a `Step` and cuts the logits apart again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..backends.base import CancelFlag, Executor
from ..cache.protocol import CacheHandle
from ..step import Step
from .sequence import Chunk


class Runner:
    """Runs chunks on one executor, to which it holds the only reference; counts what was run."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.num_tokens = 0  # tokens run so far, those of shared prefixes not included
        self.num_steps = 0

    def run(self, chunks: list[Chunk], cancel: CancelFlag) -> list[NDArray[np.float32]]:
        """Logits of each chunk, float32 [chunk.n_outputs, vocabulary]; views that are valid until the next call."""
        logits = self.executor.run(make_step(chunks), cancel)
        self.num_steps += 1
        self.num_tokens += sum(chunk.count for chunk in chunks)
        ends = np.cumsum([chunk.n_outputs for chunk in chunks])
        return np.split(logits, ends[:-1])

    def copy_page(self, source: int, target: int) -> None:
        """Copy one page of keys and values in every layer."""
        self.executor.kv.copy_page(source, target)

    def close(self) -> None:
        """Close the executor and let go of it: the weights it reads from the file and its caches are free then."""
        self.executor.close()
        del self.executor


def make_step(chunks: list[Chunk]) -> Step:
    """The arrays of one step. Row i of the page table is chunk i's sequence."""
    counts = [chunk.count for chunk in chunks]
    handles: list[CacheHandle] = [chunk.sequence.handle for chunk in chunks]
    starts = np.cumsum([0, *counts])
    return Step(
        tokens=np.concatenate([np.array(c.sequence.tokens[c.start : c.stop], np.int32) for c in chunks]),
        positions=np.concatenate([np.arange(c.start, c.stop, dtype=np.int32) for c in chunks]),
        sequence=np.repeat(np.arange(len(chunks), dtype=np.int32), counts),
        pages=_page_table([handle.pages for handle in handles]),
        outputs=np.concatenate(
            [np.arange(stop - c.n_outputs, stop, dtype=np.int32) for c, stop in zip(chunks, starts[1:], strict=True)]
        ),
        is_prompt=any(chunk.is_prompt for chunk in chunks),
    )


def _page_table(pages: list[Sequence[int]]) -> NDArray[np.int32]:
    table = np.full((len(pages), max(map(len, pages))), -1, np.int32)
    for row, ids in zip(table, pages, strict=True):
        row[: len(ids)] = ids
    return table
