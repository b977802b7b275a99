"""The reference backend over weights that are read in parts and forgotten: one step of a model of any size.

Nothing is kept between ops, so that every step reads the whole model. It takes no more memory than a few rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...formats.gguf.tensors import GGUFTensor
from ...formats.quants import decode
from ..cache.kv import KVPool
from ..graph.ir import Graph, Weight
from .reference import ReferenceExecutor

PART_WEIGHTS = 1 << 22  # decoded at once: what NumPy needs beside them is a few times their 16 MB

Floats = NDArray[np.float32]


class StreamedExecutor(ReferenceExecutor):
    """See ReferenceExecutor. Vectors are those of the graph; matrices come from `tensors`, by name."""

    def __init__(self, graph: Graph, tensors: Mapping[str, GGUFTensor], *, n_pages: int, max_tokens: int) -> None:
        super().__init__(graph, KVPool(graph.state, n_pages, np.float32), max_tokens)
        self._tensors = tensors

    def _weight(self, op: str, weight: Weight) -> Any:
        if len(weight.shape) == 1:
            return decode(weight.data, weight.type)
        return Streamed(self._tensors[weight.tensor], weight.shape, weight.first_row)


@dataclass(frozen=True)
class Streamed:
    """A matrix, or a stack of them, as ops use it: `x @ m.T`, `m[expert]`, `m[ids]`. It begins at `first_row`."""

    tensor: GGUFTensor
    shape: tuple[int, ...]
    first_row: int = 0

    __array_ufunc__ = None  # `x @ ...` is asked of what stands on the right

    @property
    def T(self) -> _Transposed:
        """For a product."""
        return _Transposed(self)

    def __getitem__(self, which: Any) -> Any:
        """One matrix of a stack by its number, or rows by an array of theirs."""
        if len(self.shape) == 3:
            return replace(self, shape=self.shape[1:], first_row=self.first_row + int(which) * self.shape[1])
        return np.concatenate([self.rows(int(row), int(row) + 1) for row in which])

    def rows(self, first: int, last: int) -> Floats:
        """Rows as float32 [last - first, cols]; what reading them took is given back."""
        lo, hi = self.first_row + first, self.first_row + last
        found = decode(self.tensor.rows[lo:hi], self.tensor.type)
        found = found if found.flags.owndata else found.copy()  # float32 is a view of the file
        self.tensor.forget(lo * self.tensor.row_bytes, hi * self.tensor.row_bytes)
        return found


@dataclass(frozen=True)
class _Transposed:
    """The right side of a product."""

    matrix: Streamed

    __array_ufunc__ = None

    def __rmatmul__(self, x: Floats) -> Floats:
        n, k = self.matrix.shape
        made, step = np.empty((len(x), n), np.float32), max(1, PART_WEIGHTS // k)
        for first in range(0, n, step):
            made[:, first : first + step] = x @ self.matrix.rows(first, min(first + step, n)).T
        return made
