"""Tensors of checkpoints: plain arrays in a file, under the names that safetensors gives to types of numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .gguf.source import Source, open_source

if TYPE_CHECKING:
    from typing_extensions import Self

# Bits of one element.
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file. `shape` is in NumPy order, `offset` that of its first byte in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int
    _source: Source = field(repr=False, compare=False)

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def path(self) -> str:
        return os.fspath(self._source.path)

    @property
    def raw(self) -> NDArray[np.uint8]:
        """Read-only bytes in little-endian layout, uint8[n_bytes]: a view of the mapped file."""
        return self._source.array[self.offset : self.offset + self.n_bytes]

    def forget(self, start: int = 0, stop: int | None = None) -> None:
        """Give back the memory that reading these bytes of `raw` took. They can be read again."""
        self._source.forget(self.offset + start, self.offset + (self.n_bytes if stop is None else stop))


class StoredFile:
    """A validated file of such tensors. Use `open` of a format's class, as a context manager or with `close()`."""

    tensors: Mapping[str, StoredTensor]

    def __init__(self, source: Source) -> None:
        self._source = source
        self.path, self.size = Path(source.path), source.size

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open and validate a file. Raises FileAccessError, ResourceError, and the errors of the format."""
        source = open_source(path)
        try:
            return cls(source)
        except BaseException:
            source.close()
            raise

    def close(self) -> None:
        """Release the file. Arrays taken from `tensors` stay valid and keep it mapped."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self.tensors)} tensors)"


def to_float32(raw: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    """The numbers in some bytes as float32 [n], rounded where they are wider; KeyError for types without a rule."""
    numbers: NDArray[np.float32] = _READERS[dtype](np.ascontiguousarray(raw))
    return numbers


def _plain(dtype: str) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    def read(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
        with np.errstate(over="ignore", invalid="ignore"):  # whoever asks looks for infinities and NaN
            numbers: NDArray[np.float32] = raw.view(dtype).astype(np.float32)
        return numbers

    return read


def _bfloat16(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    numbers: NDArray[np.float32] = (raw.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    return numbers


def _eight_bits(exponent_bits: int, mantissa_bits: int, *, has_infinity: bool) -> NDArray[np.float32]:
    """The value of every 8-bit float, float32[256]: IEEE form, or "fn", where only the last code of all is NaN."""
    code = np.arange(128)
    exponent, mantissa = code >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
    bias, unit = (1 << (exponent_bits - 1)) - 1, 1 << mantissa_bits
    value = np.where(
        exponent == 0, np.ldexp(mantissa / unit, 1 - bias), np.ldexp(1 + mantissa / unit, exponent - bias)
    ).astype(np.float32)
    if has_infinity:
        top = exponent == (1 << exponent_bits) - 1
        value[top] = np.where(mantissa[top] == 0, np.inf, np.nan)
    else:
        value[127] = np.nan
    return np.concatenate([value, -value])


E4M3 = _eight_bits(4, 3, has_infinity=False)
E5M2 = _eight_bits(5, 2, has_infinity=True)
E8M0 = np.append(np.ldexp(np.float32(1), np.arange(255) - 127), np.float32(np.nan)).astype(np.float32)

_READERS: Mapping[str, Callable[[NDArray[np.uint8]], Any]] = {
    "F64": _plain("<f8"), "F32": _plain("<f4"), "F16": _plain("<f2"), "BF16": _bfloat16,
    "I64": _plain("<i8"), "I32": _plain("<i4"), "I16": _plain("<i2"), "I8": _plain("i1"),
    "U64": _plain("<u8"), "U32": _plain("<u4"), "U16": _plain("<u2"), "U8": _plain("u1"), "BOOL": _plain("u1"),
    "F8_E4M3": E4M3.__getitem__, "F8_E5M2": E5M2.__getitem__, "F8_E8M0": E8M0.__getitem__,
}  # fmt: skip


def is_readable(dtype: str) -> bool:
    """Whether `to_float32` has a rule for a type."""
    return dtype in _READERS
