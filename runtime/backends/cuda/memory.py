"""What lies in device memory: the inputs of a step, weights, pages of keys and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....formats.quants import decode
from ...graph.ir import KVSpec, Weight
from ...step import PAGE, Step
from .allocate import Array, DeviceMemory

Kind = tuple[int, bool]  # of tiles: most tokens, and whether attention is causal


class Inputs:
    """The arrays of a step, at the same addresses in every step: so launches can be recorded."""

    def __init__(self, memory: DeviceMemory, max_tokens: int, max_pages: int) -> None:
        self._memory, self._max_tokens, self.per_sequence = memory, max_tokens, max_pages
        self.tokens, self.positions, self.sequence, self.outputs, self.first = (
            memory.zeros(max_tokens, np.int32) for _ in range(5)
        )
        self.pages = memory.zeros(max_tokens * max_pages, np.int32)
        self._tiles: dict[Kind, Array] = {}

    def tiles_of(self, tokens: int, causal: bool) -> Array:
        """Where the tiles of up to `tokens` tokens will be."""
        kind = tokens, causal
        if kind not in self._tiles:
            self._tiles[kind] = self._memory.zeros(3 * self._max_tokens, np.int32)
        return self._tiles[kind]

    def write(self, step: Step, stream: Any) -> tuple[tuple[Kind, int], ...]:
        """Returns how many tiles there are of each kind."""
        for name in ("tokens", "positions", "sequence", "outputs"):
            _put(getattr(self, name), getattr(step, name), stream)
        pages = np.full((len(step.pages), self.per_sequence), -1, np.int32)
        width = min(step.pages.shape[1], self.per_sequence)
        pages[:, :width] = step.pages[:, :width]
        _put(self.pages, pages, stream)
        counts = []
        for kind, array in self._tiles.items():
            tiles = tiles_of(step, *kind)
            _put(array, tiles, stream)
            counts.append((kind, len(tiles)))
        return tuple(counts)


def _put(array: Array, values: NDArray[np.integer], stream: Any) -> None:
    """Copy to the beginning of an array."""
    flat = np.ascontiguousarray(values, np.int32).reshape(-1)
    if flat.size:
        array[: flat.size].copy_to_device(flat, stream=stream)


def tiles_of(step: Step, most: int, causal: bool) -> NDArray[np.int32]:
    """int32 [n, 3]: consecutive positions of one sequence, `most` tokens at most: first token, tokens, and the last
    position of the sequence where all its tokens see it, or -1.
    """
    positions, sequence, tiles, first = step.positions, step.sequence, [], 0
    while first < step.n_tokens:
        end = first + 1
        while (
            end < min(step.n_tokens, first + most)
            and sequence[end] == sequence[first]
            and positions[end] == positions[end - 1] + 1
        ):
            end += 1
        last = -1 if causal else int(positions[sequence == sequence[first]].max())
        tiles.append((first, end - first, last))
        first = end
    return np.array(tiles, np.int32).reshape(-1, 3)


class Pages:
    """Keys and values of the layers on a device, as float16; see cache.kv.KVPool, whose layout they have."""

    def __init__(self, memory: DeviceMemory, specs: Sequence[KVSpec], n_pages: int) -> None:
        self.n_pages, self.dtype, self._specs = n_pages, np.dtype(np.float16), specs
        self.keys: dict[int, Array] = {}
        self.values: dict[int, Array] = {}
        for spec in specs:
            lines = n_pages * spec.n_head_kv * PAGE
            self.keys[spec.layer] = memory.zeros(lines * spec.key_dim, np.float16)
            self.values[spec.layer] = memory.zeros(lines * spec.value_dim, np.float16)

    def copy_page(self, source: int, target: int) -> None:
        """Copy one page in every layer."""
        for spec in self._specs:
            for pages, dim in ((self.keys, spec.key_dim), (self.values, spec.value_dim)):
                size, mine = spec.n_head_kv * PAGE * dim, pages[spec.layer]
                mine[target * size : (target + 1) * size].copy_to_device(mine[source * size : (source + 1) * size])

    @property
    def n_bytes(self) -> int:
        """Of all pages."""
        return sum(int(array.nbytes) for array in (*self.keys.values(), *self.values.values()))


class Weights:
    """Weights that were uploaded, each once: matrices as the file has them, vectors as float32."""

    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory
        self._uploaded: dict[tuple[Any, str], Array] = {}
        self.none = memory.zeros(1, np.float32)  # for arguments that are not there

    def matrix(self, weight: Weight) -> Array:
        """The bytes of its blocks, uint8."""
        return self._once(weight.data.ctypes.data, "matrix", lambda: weight.data.reshape(-1).view(np.uint8))

    def vector(self, weight: Weight | None) -> Array:
        """float32; `none` where there is none."""
        if weight is None:
            return self.none
        return self._once(weight.data.ctypes.data, "vector", lambda: decode(weight.data, weight.type))

    def array(self, key: Any, values: NDArray[Any]) -> Array:
        """Something that is no weight, by a key of its own."""
        return self._once(key, "array", lambda: values)

    def _once(self, key: Any, form: str, make: Callable[[], NDArray[Any]]) -> Array:
        if (key, form) not in self._uploaded:
            self._uploaded[key, form] = self._memory.upload(make())
        return self._uploaded[key, form]
