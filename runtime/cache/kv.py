"""Storage of keys and values: one pool of pages per attention layer, shared by all sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...formats.gguf.types import GGMLType
from ..graph.ir import Graph, KVSpec
from ..step import PAGE

# What pages may hold, by the names that `Model.load`, the command and the CPU backend's kernels have for it.
KV_TYPES = {"f16": np.dtype(np.float16), "f32": np.dtype(np.float32)}


def exact_kv_type(graph: Graph) -> str | None:
    """ "f32" for a model whose matrices are mostly float32, None (a backend's own choice) for any other.

    Who keeps weights so wants what was trained, and float16 pages would be nearly all of the error: 1.5e-3 of the
    largest logit, where the rest is 2.0e-6 (benchmarks/results/families.md). Other weights are rounded by more.
    """
    matrices = {w.tensor: w for node in graph.nodes for w in node.weights.values() if len(w.shape) > 1}
    sizes = [(w.type is GGMLType.F32, math.prod(w.shape)) for w in matrices.values()]
    exact = sum(size for is_exact, size in sizes if is_exact)
    return "f32" if 2 * exact > sum(size for _, size in sizes) else None


class KVPool:
    """Pages per layer: keys [n_pages, n_head_kv, key_dim, PAGE], values [n_pages, n_head_kv, PAGE, value_dim].

    One head's tile of a page is contiguous. Keys are stored transposed, so that the scores of a page are a sum of
    query[i] * keys[i, :] over whole vectors of positions, and the weighted sum of values runs over whole vectors too.

    Pages are handed out by the block manager; the pool only holds bytes. Memory is committed by the operating system
    when a page is first written, so a large context costs nothing until it is used.
    """

    def __init__(self, specs: Sequence[KVSpec], n_pages: int, dtype: DTypeLike = np.float16) -> None:
        self.n_pages, self.dtype = n_pages, np.dtype(dtype)
        self.keys = {s.layer: np.zeros((n_pages, s.n_head_kv, s.key_dim, PAGE), self.dtype) for s in specs}
        self.values = {s.layer: np.zeros((n_pages, s.n_head_kv, PAGE, s.value_dim), self.dtype) for s in specs}

    @property
    def kv_type(self) -> str:
        """What pages hold: its name in KV_TYPES, or NumPy's name for any other."""
        return next((name for name, dtype in KV_TYPES.items() if dtype == self.dtype), self.dtype.name)

    def store(self, layer: int, page: int, slot: int, key: NDArray[np.float32], value: NDArray[np.float32]) -> None:
        """Write one position: key [n_head_kv, key_dim], value [n_head_kv, value_dim]."""
        self.keys[layer][page, :, :, slot] = key
        self.values[layer][page, :, slot, :] = value

    def copy_page(self, source: int, target: int) -> None:
        """Copy one page in every layer: the state of `source` becomes that of `target`."""
        for pages in (*self.keys.values(), *self.values.values()):
            pages[target] = pages[source]

    def gather(
        self, layer: int, pages: NDArray[np.int32], length: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Positions 0..length-1 of a sequence as float32: keys [n_head_kv, length, key_dim], values likewise."""
        used = pages[: -(-length // PAGE)]
        keys = self.keys[layer][used].transpose(1, 0, 3, 2)  # head, page, slot, dim
        values = self.values[layer][used].transpose(1, 0, 2, 3)
        return _joined(keys, length), _joined(values, length)

    @staticmethod
    def page_bytes(specs: Sequence[KVSpec], dtype: DTypeLike) -> int:
        """Bytes of one page over all layers: what a pool costs is known before it is made."""
        return sum(s.n_head_kv * (s.key_dim + s.value_dim) for s in specs) * PAGE * np.dtype(dtype).itemsize

    @property
    def n_bytes(self) -> int:
        """Bytes reserved when every page is in use."""
        return sum(a.nbytes for a in (*self.keys.values(), *self.values.values()))


def _joined(pages: NDArray[np.floating], length: int) -> NDArray[np.float32]:
    """[head, page, slot, dim] -> float32 [head, length, dim]."""
    return pages.reshape(pages.shape[0], -1, pages.shape[-1])[:, :length].astype(np.float32)
