"""Storage of keys and values: one pool of pages per attention layer, shared by all sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..graph.ir import KVSpec
from ..step import PAGE


class KVPool:
    """Pages of keys and values, [n_pages, n_head_kv, PAGE, dim] per layer: one head's tile of a page is contiguous.

    Pages are handed out by the block manager; the pool only holds bytes. Memory is committed by the operating system when a
    page is first written, so a large context costs nothing until it is used.
    """

    def __init__(self, specs: Sequence[KVSpec], n_pages: int, dtype: DTypeLike = np.float16) -> None:
        self.n_pages, self.dtype = n_pages, np.dtype(dtype)
        self.keys = {s.layer: self._pages(n_pages, s.n_head_kv, s.key_dim) for s in specs}
        self.values = {s.layer: self._pages(n_pages, s.n_head_kv, s.value_dim) for s in specs}

    def _pages(self, n_pages: int, n_head: int, dim: int) -> NDArray[np.floating]:
        return np.zeros((n_pages, n_head, PAGE, dim), self.dtype)

    @property
    def n_bytes(self) -> int:
        """Bytes reserved when every page is in use."""
        return sum(a.nbytes for a in (*self.keys.values(), *self.values.values()))
