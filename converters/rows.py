"""Tensors of a checkpoint on their way into a GGUF file: read row by row, so that none is ever held whole.

What a family has to change (the order of rows, experts in one tensor, a transposed matrix, one added to a norm) is said
by functions that make new `Rows` of old ones; nothing is read before a row is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..formats.gguf import GGMLType
from ..formats.quants import codec_for
from ..formats.stored import StoredTensor, to_float32

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

COMPARED = 1 << 20  # numbers at once
# Stored types that GGUF has as well; all others become float32.
KEPT = {"F32": GGMLType.F32, "F16": GGMLType.F16, "BF16": GGMLType.BF16}


@dataclass(frozen=True)
class Rows:
    """A tensor of `shape` in NumPy order. Its rows are those of the last dimension, counted through all others.

    read    (first, last) -> uint8[last - first, row_bytes] in the layout of `type`: F32, F16 or BF16
    forget  (first, last): give back the memory that reading these rows took
    kept    the type that `auto` keeps them in, where it is not `type`
    origin  where it comes from, for errors
    """

    shape: tuple[int, ...]
    type: GGMLType
    origin: str
    read: Callable[[int, int], Bytes]
    forget: Callable[[int, int], None] = lambda first, last: None
    kept: GGMLType | None = None

    @property
    def n_rows(self) -> int:
        return math.prod(self.shape[:-1])

    def floats(self, first: int, last: int) -> Floats:
        """Rows as float32 [last - first, cols]."""
        return codec_for(self.type).decode(self.read(first, last))


def stored(tensor: StoredTensor) -> Rows:
    """A tensor as the file has it. A scalar is one row of one."""
    shape = tensor.shape or (1,)
    n_bytes = tensor.n_bytes // max(1, math.prod(shape[:-1]))
    type_ = KEPT.get(tensor.dtype)

    def raw(first: int, last: int) -> Bytes:
        return tensor.raw[first * n_bytes : last * n_bytes].reshape(last - first, n_bytes)

    def as_floats(first: int, last: int) -> Bytes:
        return _bytes(to_float32(raw(first, last), tensor.dtype).reshape(last - first, shape[-1]))

    def forget(first: int, last: int) -> None:
        tensor.forget(first * n_bytes, last * n_bytes)

    origin = f"{tensor.path}: tensor {tensor.name!r}"
    return Rows(shape, type_ or GGMLType.F32, origin, raw if type_ else as_floats, forget)


def array(values: Floats, origin: str) -> Rows:
    """Numbers that are computed, float32."""
    rows = np.ascontiguousarray(values, "<f4").reshape(-1, values.shape[-1])
    return Rows(values.shape, GGMLType.F32, origin, lambda first, last: _bytes(rows[first:last]))


def taken(rows: Rows, order: NDArray[np.intp], shape: tuple[int, ...] | None = None) -> Rows:
    """Rows in another order, or some of them; `shape` where it is not that of a matrix."""
    if len(rows.shape) == 1:  # a bias: its numbers go the way of the rows of its matrix
        values = rows.floats(0, 1)[0]
        return array(values[order].reshape(shape or (len(order),)), rows.origin)

    def read(first: int, last: int) -> Bytes:
        wanted = order[first:last]
        low, high = int(wanted.min()), int(wanted.max()) + 1
        return rows.read(low, high)[wanted - low]

    def forget(first: int, last: int) -> None:
        wanted = order[first:last]
        rows.forget(int(wanted.min()), int(wanted.max()) + 1)

    return replace(rows, shape=shape or (len(order), rows.shape[-1]), read=read, forget=forget)


def part(rows: Rows, first: int, last: int) -> Rows:
    """Some rows that follow each other."""
    return taken(rows, np.arange(first, last))


def stacked(parts: Sequence[Rows]) -> Rows:
    """Equal matrices as one tensor, [len(parts), rows, cols]: experts."""
    each = parts[0].n_rows

    def pieces(first: int, last: int) -> list[tuple[Rows, int, int]]:
        found = []
        while first < last:
            number, row = divmod(first, each)
            stop = min(each, row + last - first)
            found.append((parts[number], row, stop))
            first += stop - row
        return found

    def read(first: int, last: int) -> Bytes:
        return np.concatenate([rows.read(low, high) for rows, low, high in pieces(first, last)])

    def forget(first: int, last: int) -> None:
        for rows, low, high in pieces(first, last):
            rows.forget(low, high)

    return replace(parts[0], shape=(len(parts), *parts[0].shape), read=read, forget=forget)


def same(a: Rows, b: Rows) -> bool:
    """Whether two tensors hold the same numbers."""
    if a.shape != b.shape:
        return False
    step = max(1, COMPARED // a.shape[-1])
    for first in range(0, a.n_rows, step):
        last = min(first + step, a.n_rows)
        if not np.array_equal(a.floats(first, last), b.floats(first, last)):
            return False
        for rows in (a, b):
            rows.forget(first, last)
    return True


def transposed(rows: Rows) -> Rows:
    """A matrix whose columns become rows. All of it is mapped, but only some columns are copied at a time."""
    n_rows, n_cols = rows.shape

    def read(first: int, last: int) -> Bytes:
        size = rows.type.block_bytes
        columns = rows.read(0, n_rows).reshape(n_rows, n_cols, size)[:, first:last]
        return np.ascontiguousarray(columns.swapaxes(0, 1)).reshape(last - first, n_rows * size)

    return replace(rows, shape=(n_cols, n_rows), read=read, forget=lambda first, last: None)


def computed(rows: Rows, change: Callable[[Floats], Floats]) -> Rows:
    """Numbers changed one by one, as float32."""
    return computed_by_row(rows, lambda values, first: change(values))


def computed_by_row(rows: Rows, change: Callable[[Floats, int], Floats]) -> Rows:
    """Rows changed by what they are and by the number of the first of them, as float32."""
    return replace(rows, type=GGMLType.F32, read=lambda first, last: _bytes(change(rows.floats(first, last), first)))


def reshaped(rows: Rows, shape: tuple[int, ...]) -> Rows:
    """The same numbers in the same order under another shape with rows of the same length."""
    assert math.prod(shape) == math.prod(rows.shape)
    assert shape[-1] == rows.shape[-1]
    return replace(rows, shape=shape)


def _bytes(values: Floats) -> Bytes:
    return np.ascontiguousarray(values, "<f4").view(np.uint8)
