"""How far weights are from those that they came from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codec import CodecError

BEYOND = 1.01  # a weight so many times as large as all of its block afterwards counts as clipped


@dataclass
class Errors:
    """Sums over weights x that became y. Where one of them is NaN or infinite, errors are NaN."""

    weights: int = 0
    clipped: int = 0
    largest: float = 0.0  # |y - x|
    _xx: float = 0.0
    _yy: float = 0.0
    _xy: float = 0.0
    _dd: float = 0.0

    def add(self, x: NDArray[np.float32], y: NDArray[np.float32], block: int) -> None:
        """Count some weights, whole blocks of `block` each: float32 of one shape."""
        a, b = x.reshape(-1).astype(np.float64), y.reshape(-1).astype(np.float64)
        with np.errstate(invalid="ignore"):
            self._add(a, b, block)

    def _add(self, a: NDArray[np.float64], b: NDArray[np.float64], block: int) -> None:
        off = b - a
        self.weights += a.size
        self.largest = float(np.maximum(self.largest, np.abs(off).max(initial=0)))  # which keeps NaN
        self._xx, self._yy, self._xy = self._xx + float(a @ a), self._yy + float(b @ b), self._xy + float(a @ b)
        self._dd += float(off @ off)
        most = np.abs(b).reshape(-1, block).max(axis=1, keepdims=True)
        self.clipped += int(np.count_nonzero(np.abs(a).reshape(-1, block) > BEYOND * most)) if block > 1 else 0

    def include(self, other: Errors) -> None:
        """Count the weights of another as well."""
        for name in ("weights", "clipped", "_xx", "_yy", "_xy", "_dd"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.largest = float(np.maximum(self.largest, other.largest))

    @property
    def relative_rmse(self) -> float:
        """Root of the mean square of errors, by that of the weights."""
        return _root_of_ratio(self._dd, self._xx)

    @property
    def sqnr(self) -> float:
        """The same in decibels; infinite where nothing changed."""
        return math.inf if self.relative_rmse == 0 else -20 * math.log10(self.relative_rmse)

    @property
    def cosine(self) -> float:
        """Of the angle between x and y."""
        return self._xy / math.sqrt(self._xx * self._yy) if self._xx * self._yy != 0 else math.nan

    @property
    def clipped_share(self) -> float:
        return self.clipped / self.weights if self.weights else math.nan


def errors(x: NDArray[np.float32], y: NDArray[np.float32], block: int | None = None) -> Errors:
    """Of weights float32 [..., cols] that became y, in blocks of so many neighbours; None is a row.

    The block only decides which weights count as clipped. CodecError where x and y are not alike, or no whole blocks.
    """
    arrays: tuple[NDArray[Any], ...] = (x, y)
    if x.shape != y.shape or not x.ndim or any(v.dtype != np.float32 for v in arrays):
        raise CodecError(f"{x.dtype} {x.shape} and {y.dtype} {y.shape} are not float32 weights of one shape, in rows")
    size = x.shape[-1] if block is None else block
    if size < 1 or x.shape[-1] % size:
        raise CodecError(f"rows of {x.shape[-1]} weights are not whole blocks of {size}")
    found = Errors()
    found.add(x, y, size)
    return found


def _root_of_ratio(a: float, b: float) -> float:
    if b == 0:
        return 0.0 if a == 0 else math.inf
    return math.sqrt(a / b)
