"""Weights of one tensor before and after, as many as pictures need: whole blocks, evenly spread over the tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...formats.gguf import GGMLType, GGUFFile, GGUFTensor
from ...formats.quants import CODECS
from .levels import Levels, probe

MOST = 1 << 20  # weights: 4 MB of float32

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """The same weights in the first model and in a changed one, float32[n]."""

    type: GGMLType
    before: Floats
    after: Floats
    n_elements: int  # of the whole tensor
    levels: Levels | None  # of the type afterwards, where weights have levels of their own
    _blocks: Bytes

    def placed(self) -> tuple[Floats, Floats]:
        """Weights before and after in units of the levels, without those that have no place: float32[m] each."""
        assert self.levels is not None
        pair = [w.reshape(-1, CODECS[self.type].block_size) for w in (self.before, self.after)]
        before, after = (p.reshape(-1) for p in self.levels.place(self._blocks, *pair))
        there = np.isfinite(before) & np.isfinite(after)
        return before[there], after[there]

    def finite(self) -> tuple[Floats, Floats]:
        """Weights that are numbers before and after, float32[m] each."""
        there = np.isfinite(self.before) & np.isfinite(self.after)
        return self.before[there], self.after[there]


def take_samples(first: GGUFFile, changed: Sequence[GGUFFile], name: str) -> list[Sample]:
    """A sample for each changed model, all of the same weights. The tensor's type has a codec in all files."""
    before, *after = (file.tensors[name] for file in (first, *changed))
    unit = math.lcm(*(t.type.block_size for t in (before, *after)))  # divides a row, as each block does
    count = before.n_elements // unit
    chosen = np.unique(np.linspace(0, count - 1, min(count, max(1, MOST // unit))).astype(np.int64))
    weights = _decode(before, _units(before, unit)[chosen]) if count else np.empty(0, np.float32)
    return [_sample(weights, t, unit, chosen if count else chosen[:0]) for t in after]


def _sample(before: Floats, after: GGUFTensor, unit: int, chosen: NDArray[np.int64]) -> Sample:
    data = _units(after, unit)[chosen].reshape(-1, after.type.block_bytes)
    weights, levels = _decode(after, data), probe(after.type)
    block = after.type.block_size
    if levels is not None and not levels.explain(data, weights.reshape(-1, block)):
        levels = None
    after.forget()
    return Sample(after.type, before, weights, after.n_elements, levels, data)


def _units(tensor: GGUFTensor, unit: int) -> Bytes:
    """uint8[n, bytes of `unit` weights]."""
    return tensor.data.reshape(-1, tensor.type.row_bytes(unit))


def _decode(tensor: GGUFTensor, data: Bytes) -> Floats:
    weights: Floats = CODECS[tensor.type].decode(data).reshape(-1)
    return weights
