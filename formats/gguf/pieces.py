"""Tensor data on its way to the file: whatever the caller has becomes little-endian bytes, in bounded pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import WriteError

_CHUNK = 16 << 20  # bytes converted at a time, so that memory does not grow with the tensor


def flatten(data: Any) -> Iterator[memoryview]:
    """Turn what `write_tensor` accepts into little-endian bytes, without copying contiguous arrays."""
    if isinstance(data, str) or not (_is_bytes(data) or isinstance(data, Iterable)):
        raise WriteError(f"tensor data is bytes, an array or an iterable of them, not {type(data)!r}")
    for part in [data] if _is_bytes(data) else data:
        if isinstance(part, np.ndarray):
            yield from _array_pieces(part)
        elif _is_bytes(part):
            view = memoryview(part)
            yield view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
        else:
            raise WriteError(f"a piece of tensor data is bytes or an array, not {type(part)!r}")


def _is_bytes(data: Any) -> bool:
    """Whether `data` has the buffer protocol. (Python 3.12 has a class for that.)"""
    try:
        memoryview(data).release()
    except TypeError:
        return False
    return True


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
