"""Parts of benchmarks.cuda about single kernels: copies, and products of one row."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGMLType
from halfbyte.runtime.backends.cuda import package

from tests.builders_quants import random_blocks

from .cuda_device import MOST, Launch, Timed, measure
from .cuda_goals import Board, of_copies, told

COPIED = 1 << 16 if package.SIMULATED else 1 << 30  # bytes
L2_BYTES = 256 << 20  # more than any GPU's
ROWS, TILES, TENSOR_CORES, BLAS = "rows", "tiles", "tensor cores", "unpacked and cuBLAS"  # what makes a product
cuda: Any = package.cuda


def copies(board: Board, args: argparse.Namespace) -> None:
    """What a weight's bytes are held against: bytes read plus bytes written by copies within the device."""
    source, target = (cuda.to_device(np.zeros(COPIED, np.uint8)) for _ in range(2))
    timed = measure(lambda _, stream: target.copy_to_device(source, stream=stream))
    found = 2 * COPIED / timed.seconds
    board.data["copies"] = {"bytes": COPIED, "seconds": timed.seconds, "bytes_per_second": found, "how": timed.how}
    row = (f"{COPIED / 1e6:.0f}", f"{timed.seconds * 1e6:.1f}", f"{found / 1e9:.0f}", timed.how)
    board.table("Copies within the device", ("MB", "us", "GB/s read and written", "Launches"), [row])


def bandwidth(board: Board, args: argparse.Namespace) -> float:
    """Of copies, in bytes per second."""
    if "copies" not in board.data:
        copies(board, args)
    found: float = board.data["copies"]["bytes_per_second"]
    return found


class Matrices:
    """A random matrix, so often that none is left in the L2 cache when its turn comes."""

    def __init__(self, name: str, n: int, cols: int) -> None:
        from halfbyte.runtime.backends.cuda.allocate import DeviceMemory
        from halfbyte.runtime.backends.cuda.kernels.linear import FLOATS
        from halfbyte.runtime.backends.cuda.weights import table_of

        data = random_blocks(GGMLType[name], (n, cols), np.random.default_rng(1))
        self.name, self.n, self.cols, self.n_bytes, self._row_bytes = name, n, cols, data.nbytes, data.shape[1]
        self.turns = 1 if package.SIMULATED else min(MOST, -(-L2_BYTES // data.nbytes) + 1)
        memory = DeviceMemory()
        self._arrays = [memory.upload(data) for _ in range(self.turns)]
        memory.finish()
        self._table, self._floats = cuda.to_device(table_of(name)), name in FLOATS

    def product(self, m: int, how: str) -> Timed:
        """With m rows of activations, by one of `cuda_products.ways`."""
        if how == BLAS:
            return self._blas_product(m)
        return measure(self._launch(m, how), self.turns)

    def _blas_product(self, m: int) -> Timed:
        """Of weights that become bfloat16 first; the activations are it."""
        from halfbyte.runtime.backends.cuda.allocate import DeviceMemory
        from halfbyte.runtime.backends.cuda.cublas import CuBLAS, Matrix

        stream = cuda.stream()
        blas = CuBLAS(DeviceMemory(), stream)
        try:
            blas.reserve(self.name, self.n, self.cols)
            blas.settle()
            matrices = [
                Matrix(self.name, array, self._row_bytes, self._table, self.n, self.cols) for array in self._arrays
            ]
            x = _floats(m * self.cols) if self.name == "F32" else cuda.to_device(np.zeros(m * self.cols // 2, np.int32))
            out = cuda.device_array(m * self.n, np.float32)
            return measure(lambda i, _: blas.multiply(matrices[i], x, m, out), self.turns, stream)
        finally:
            blas.close()

    def _launch(self, m: int, how: str) -> Launch:
        kernel, given, none = _kernel(self.name, how, m, self.n), self._activations(m), _floats(1)
        shares, out = self.cols if self._floats else self.cols // 32, cuda.device_array(m * self.n, np.float32)

        def launch(i: int, stream: Any) -> None:
            start = self._arrays[i], self._row_bytes, self._table, self.n, shares
            kernel(stream)(*start, *given, m, none, False, none, False, out)

        return launch

    def _activations(self, m: int) -> tuple[Any, Any, Any]:
        if self._floats:
            x = _floats(m * self.cols)
            return x, x, x
        groups = m * self.cols // 32
        return cuda.to_device(np.ones(8 * groups, np.int32)), _floats(groups), _floats(2 * groups)


def _floats(count: int) -> Any:
    return cuda.to_device(np.ones(count, np.float32))


def _kernel(name: str, how: str, m: int, n: int) -> Callable[[Any], Any]:
    """Configured as the backend does, for a stream."""
    from halfbyte.runtime.backends.cuda import lower_linear
    from halfbyte.runtime.backends.cuda.now import Now

    def configured(stream: Any) -> Any:
        now = Now(m, m, 1, (), stream)
        if how == ROWS:
            return lower_linear._few(name, m, n, now)
        return lower_linear._many(name, m, n, now, how == TENSOR_CORES)

    return configured


def shape_of(args: argparse.Namespace) -> tuple[int, int]:
    """Rows and columns of the matrix."""
    rows, _, cols = args.matrix.partition("x")
    return int(rows), int(cols)


def kernels(board: Board, args: argparse.Namespace) -> None:
    """Products with one row of activations read a weight once: its bytes are their floor."""
    (n, cols), copied, rows = shape_of(args), bandwidth(board, args), []
    for name in args.types:
        try:
            matrices = Matrices(name, n, cols)
            timed = matrices.product(1, ROWS)
        except Exception as error:
            board.missing(of_copies(name), told(error))
            rows.append((name, "", "", "", "", told(error)))
            continue
        size, seconds = matrices.n_bytes, timed.seconds
        share = size / seconds / copied
        cells = f"{size / 1e6:.1f}", f"{seconds * 1e6:.1f}", f"{size / seconds / 1e9:.0f}", f"{share:.0%}"
        rows.append((name, *cells, timed.how))
        board.data[f"kernel {name}"] = {"bytes": size, "seconds": seconds, "share": share, "how": timed.how}
        board.number(of_copies(name), share)
    title = f"Products of one row with {n} x {cols}; copies reach {copied / 1e9:.0f} GB/s"
    board.table(title, ("Type", "MB", "us", "GB/s", "Of copies", "Launches"), rows)
