"""Parts of benchmarks.cuda about single kernels: copies, products of one row, and of many."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGMLType
from halfbyte.runtime.backends.cuda import package

from tests.builders_quants import random_blocks

from . import cuda_torch
from .cuda_device import Launch, Timed, measure
from .cuda_goals import Board, of_copies, told

COPIED = 1 << 16 if package.SIMULATED else 1 << 30  # bytes
L2_BYTES = 256 << 20  # more than any GPU's
COUNTS = (8, 16, 32, 64, 128, 256, 512)  # rows of activations
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
        self.turns = 1 if package.SIMULATED else -(-L2_BYTES // data.nbytes) + 1
        memory = DeviceMemory()
        self._arrays = [memory.upload(data) for _ in range(self.turns)]
        memory.finish()
        self._table, self._floats = cuda.to_device(table_of(name)), name in FLOATS

    def product(self, m: int, how: str) -> Timed:
        """With m rows of activations, by one of `ways`."""
        return measure(self._launch(m, how), self.turns)

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


def ways(name: str) -> tuple[str, ...]:
    """Kernels for products with a type of weight."""
    from halfbyte.runtime.backends.cuda.executor import has_tensor_cores
    from halfbyte.runtime.backends.cuda.kernels import linear, tensor_floats

    on_tensor_cores = package.SIMULATED or has_tensor_cores(cuda.gpus[0])
    has_kernel = name not in linear.FLOATS or name in tensor_floats.TYPES
    return ("rows", "tiles", "tensor cores")[: 3 if on_tensor_cores and has_kernel else 2]


def _kernel(name: str, how: str, m: int, n: int) -> Callable[[Any], Any]:
    """Configured as the backend does, for a stream."""
    from halfbyte.runtime.backends.cuda import lower_linear
    from halfbyte.runtime.backends.cuda.now import Now

    def configured(stream: Any) -> Any:
        now = Now(m, m, 1, (), stream)
        if how == "rows":
            return lower_linear._few(name, m, n, now)
        return lower_linear._many(name, m, n, now, how == "tensor cores")

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
            timed = matrices.product(1, "rows")
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


def products(board: Board, args: argparse.Namespace) -> None:
    """By number of rows and kernel: which is the better one decides lower_linear.FEW."""
    n, cols = shape_of(args)
    counts = [*(m for m in COUNTS if m < args.prompt), args.prompt]
    theirs: dict[int, float] = {}
    if why := cuda_torch.missing():
        board.note(f"Nothing to compare products of many rows with: {why}.")
    else:
        theirs = {m: cuda_torch.seconds(n, cols, m) for m in counts}
    for name in args.types:
        matrices, rows = Matrices(name, n, cols), []
        for m in counts:
            timed = {how: matrices.product(m, how) for how in ways(name)}
            best = min(one.seconds for one in timed.values())
            compared = f"{theirs[m] / best:.0%}" if m in theirs else ""
            times = [f"{one.seconds * 1e3:.4f}" for one in timed.values()]
            rows.append((str(m), *times, f"{2e-12 * n * cols * m / best:.1f}", compared))
            board.data[f"product of {m} {name}"] = {
                "seconds": {how: one.seconds for how, one in timed.items()},
                "how": {how: one.how for how, one in timed.items()},
                "torch": theirs.get(m),
            }
        header = ("Rows", *(f"ms, {how}" for how in ways(name)), "TFLOPS of the best", "Of torch in bf16")
        board.table(f"Products with {n} x {cols} in {name}", header, rows)
