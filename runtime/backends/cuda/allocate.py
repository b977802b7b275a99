"""Device memory is taken here and nowhere else: for real, or only counted, to know beforehand what would fit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..base import DeviceFull
from .package import cuda

Array = Any  # in device memory, flat
PIECE = 16 << 20  # bytes on their way to the device at once
CROSSING = 16 << 20  # bytes of a value that are kept pinned: logits of a whole prompt, which few ask for, take more
ALIGNMENT, LARGE_ALIGNMENT = 512, 2 << 20  # what drivers round sizes up to: small ones, and those from LARGE on
LARGE = 1 << 20
LOAD = 16  # bytes of the largest load
LEGACY = threading.RLock()  # held where the legacy stream is used, which must not be while launches are recorded


class DeviceMemory:
    """Memory of one device, the current one. `n_bytes` is what was taken."""

    def __init__(self, *, dry: bool = False) -> None:
        """dry: nothing is taken; arrays are None."""
        self.dry, self.n_bytes = dry, 0
        self._pinned: list[Any] = []

    def empty(self, count: int, dtype: DTypeLike) -> Array:
        """Room for `count` elements."""
        size = max(1, count) * np.dtype(dtype).itemsize
        if not self.dry:
            with self.asking(size):
                array = cuda.device_array(max(1, count), dtype)
        self.n_bytes += rounded(size)
        return None if self.dry else array

    @contextmanager
    def asking(self, size: int = 0) -> Iterator[None]:
        """What needs memory, of this size if it is known. Raises DeviceFull where the driver has none."""
        try:
            yield
        except Exception as error:  # each driver package has its own
            if "OUT_OF_MEMORY" not in str(error) or isinstance(error, DeviceFull):
                raise
            more = f"{size / (1 << 20):,.1f} MiB more" if size else "what running takes"
            raise DeviceFull(
                f"the GPU has no room for {more} beside the {self.n_bytes / (1 << 20):,.0f} MiB that this model has "
                "already; put fewer layers there"
            ) from error

    def forget(self, size: int) -> None:
        """An array of so many bytes, which `empty` gave, is not there any more."""
        self.n_bytes -= rounded(size)

    def zeros(self, count: int, dtype: DTypeLike) -> Array:
        array = self.empty(count, dtype)
        if array is not None:
            with LEGACY:
                array[:] = 0
        return array

    def upload(self, data: NDArray[Any]) -> Array:
        """A copy of an array, piece by piece over pinned memory: while one is on its way, the next is read.

        There is room behind it up to a multiple of 16 bytes: kernels load so many at once.
        """
        flat = np.ascontiguousarray(data).reshape(-1)
        per_load = LOAD // flat.dtype.itemsize
        array = self.empty(-(-flat.size // per_load) * per_load, flat.dtype)
        if array is None:
            return None
        stream, step = self._stream(), max(1, PIECE // flat.dtype.itemsize)
        for number, first in enumerate(range(0, flat.size, step)):
            piece = flat[first : first + step]
            staging, done = self._pinned[number % len(self._pinned)]
            done.synchronize()
            staged = staging[: piece.nbytes].view(flat.dtype)
            staged[:] = piece
            array[first : first + len(piece)].copy_to_device(staged, stream=stream)
            done.record(stream)
        return array

    def crossing(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """Pinned main memory for what goes over in a step: `count` elements, or as many as are worth it."""
        return self.pinned(min(count, CROSSING // np.dtype(dtype).itemsize), dtype)

    def pinned(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """Main memory that copies go to and from beside the host; not counted."""
        if self.dry:
            return np.empty(0, dtype)
        with self.asking():
            found: NDArray[Any] = cuda.pinned_array(max(1, count), dtype)
        return found

    def finish(self) -> None:
        """Wait for all uploads; the pinned memory is given back."""
        if self._pinned:
            self._stream().synchronize()
            self._pinned, self._uploads = [], None

    def _stream(self) -> Any:
        if not self._pinned:
            self._pinned = [(self.pinned(PIECE, np.uint8), cuda.event()) for _ in range(2)]
            self._uploads = cuda.stream()
        return self._uploads


def rounded(size: int) -> int:
    """What drivers take for so many bytes."""
    unit = LARGE_ALIGNMENT if size >= LARGE else ALIGNMENT
    return -(-size // unit) * unit


def return_memory() -> None:
    """Give the driver of the current device what nobody holds any more: the package collects it before it does so."""
    pending = getattr(getattr(cuda.current_context(), "memory_manager", None), "deallocations", None)
    if pending is not None:
        pending.clear()


def free_bytes(device: int = 0) -> int:
    """What is free on a device: none where there is not even room for a context."""
    try:
        with DeviceMemory().asking(), cuda.gpus[device]:
            return_memory()
            free = cuda.current_context().get_memory_info().free
    except DeviceFull:
        return 0
    return int(min(free, 1 << 62))  # the simulator has no end of it
