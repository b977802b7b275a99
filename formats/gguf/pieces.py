"""Tensor data on its way to the file: whatever the caller has becomes little-endian bytes, in bounded pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import WriteError

_CHUNK = 16 << 20  # bytes converted at a time, so that memory does not grow with the tensor


def flatten(data: Any) -> Iterator[memoryview]:
    """Flatten what `write_tensor` accepts into little-endian bytes, without copying contiguous arrays."""
    if isinstance(data, np.ndarray):
        yield from _array_pieces(data)
        return
    try:
        view = memoryview(data)
    except TypeError:
        if not isinstance(data, Iterable):
            raise WriteError(f"tensor data is bytes, an array or an iterable of them, not {type(data)!r}") from None
        for part in data:
            yield from flatten(part)
        return
    yield view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def _array_pieces(array: np.ndarray[Any, Any]) -> Iterator[memoryview]:
    little = array.dtype.newbyteorder("<")
    if array.flags.c_contiguous and array.dtype == little:
        yield array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
    elif array.ndim > 1 and array.nbytes > _CHUNK:
        for row in array:
            yield from _array_pieces(row)
    else:
        yield memoryview(array.astype(little).tobytes())


def swap(piece: memoryview, order: NDArray[np.intp] | None, name: str) -> Iterator[memoryview]:
    """Whole blocks with their bytes taken in `order` (see `swap_order`); None leaves them as they are."""
    if order is None:
        yield piece
        return
    if len(piece) % order.size:
        raise WriteError(f"tensor {name!r}: a big-endian file needs pieces of whole blocks of {order.size} bytes")
    step = _CHUNK // order.size * order.size
    for start in range(0, len(piece), step):
        blocks = np.frombuffer(piece[start : start + step], np.uint8).reshape(-1, order.size)
        yield memoryview(blocks[:, order].tobytes())
