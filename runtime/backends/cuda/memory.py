"""What lies in device memory: the inputs of a step, weights, pages of keys and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....formats.errors import UnsupportedError
from ....formats.quants import decode
from ...graph.ir import KVSpec, Weight
from ...step import PAGE, Step
from .allocate import Array, DeviceMemory

Kind = tuple[int, bool]  # of tiles: most tokens, and whether attention is causal
MOST_KINDS = 8  # most have two: of prompts, and of generated tokens
_OF_TOKENS = ("tokens", "positions", "sequence", "outputs")  # a number for each


class Inputs:
    """The arrays of a step, at the same addresses in every step: so launches can be recorded.

    They are views of one buffer, and there is a pinned one like it: what a step fills lies side by side, and goes over
    as one copy. Tiles lie before tokens, the first kind last, as it is not known how many kinds will come; behind
    tokens are pages, of which one sequence needs few; and then zeros, which no step fills.
    """

    def __init__(self, memory: DeviceMemory, max_tokens: int, max_pages: int) -> None:
        self._max_tokens, self.per_sequence = max_tokens, max_pages
        self._first = self._tokens = MOST_KINDS * 3 * max_tokens
        self._pages = self._tokens + len(_OF_TOKENS) * max_tokens
        zeros = self._pages + max_tokens * max_pages
        self._host, self._device = memory.pinned(zeros, np.int32), memory.zeros(zeros + max_tokens, np.int32)
        self._host[:] = 0
        self.tokens, self.positions, self.sequence, self.outputs = (
            self._view(self._tokens + i * max_tokens, max_tokens) for i in range(len(_OF_TOKENS))
        )
        self.pages = self._view(self._pages, max_tokens * max_pages)
        self.first = self._view(zeros, max_tokens)
        self._tiles: dict[Kind, tuple[int, Array]] = {}

    def _view(self, start: int, count: int) -> Array:
        return None if self._device is None else self._device[start : start + count]

    def tiles_of(self, tokens: int, causal: bool) -> Array:
        """Where the tiles of up to `tokens` tokens will be."""
        kind = tokens, causal
        if kind not in self._tiles:
            if len(self._tiles) == MOST_KINDS:
                raise UnsupportedError(f"more than {MOST_KINDS} kinds of attention in a model have no room on a GPU")
            self._first -= 3 * self._max_tokens
            self._tiles[kind] = self._first, self._view(self._first, 3 * self._max_tokens)
        return self._tiles[kind][1]

    def write(self, step: Step, stream: Any) -> tuple[tuple[Kind, int], ...]:
        """Returns how many tiles there are of each kind. What the step before wrote must have gone over."""
        for i, name in enumerate(_OF_TOKENS):
            self._put(self._tokens + i * self._max_tokens, getattr(step, name))
        counts = []
        for kind, (start, _) in self._tiles.items():
            tiles = tiles_of(step, *kind)
            self._put(start, tiles)
            counts.append((kind, len(tiles)))
        end = self._pages + len(step.pages) * self.per_sequence
        pages = self._host[self._pages : end].reshape(len(step.pages), self.per_sequence)
        width = min(step.pages.shape[1], self.per_sequence)
        pages[:, :width], pages[:, width:] = step.pages[:, :width], -1
        self._device[self._first : end].copy_to_device(self._host[self._first : end], stream=stream)
        return tuple(counts)

    def _put(self, start: int, values: NDArray[np.integer]) -> None:
        self._host[start : start + values.size] = values.reshape(-1)


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

    def __init__(
        self, memory: DeviceMemory, specs: Sequence[KVSpec], n_pages: int, stream: Any = 0,
        device: AbstractContextManager[Any] | None = None,
    ) -> None:  # fmt: skip
        """Pages are copied on `stream`, in order with the steps there. device: theirs, whichever is the current one."""
        self._stream, self._device = stream, device or nullcontext()
        self.n_pages, self.dtype, self._specs = n_pages, np.dtype(np.float16), specs
        self.keys: dict[int, Array] = {}
        self.values: dict[int, Array] = {}
        for spec in specs:
            lines = n_pages * spec.n_head_kv * PAGE
            self.keys[spec.layer] = memory.zeros(lines * spec.key_dim, np.float16)
            self.values[spec.layer] = memory.zeros(lines * spec.value_dim, np.float16)

    def copy_page(self, source: int, target: int) -> None:
        """Copy one page in every layer."""
        with self._device:
            for spec in self._specs:
                for pages, dim in ((self.keys, spec.key_dim), (self.values, spec.value_dim)):
                    size, mine = spec.n_head_kv * PAGE * dim, pages[spec.layer]
                    to, of = (mine[page * size : (page + 1) * size] for page in (target, source))
                    to.copy_to_device(of, stream=self._stream)

    def close(self) -> None:
        """Give them back, whoever still holds this."""
        self.keys.clear()
        self.values.clear()

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
