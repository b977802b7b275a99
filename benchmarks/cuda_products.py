"""The part of benchmarks.cuda about products of many rows: by kernel and number of rows, beside cuBLAS and torch."""

from __future__ import annotations

import argparse
from typing import Any

from halfbyte.runtime.backends.cuda import package

from . import cuda_torch
from .cuda_device import Timed
from .cuda_goals import Board, told
from .cuda_kernels import BLAS, ROWS, TENSOR_CORES, TILES, Matrices, shape_of

COUNTS = (8, 16, 32, 64, 128, 256, 512)  # rows of activations
cuda: Any = package.cuda


def products(board: Board, args: argparse.Namespace) -> None:
    """Which way is the better one decides lower_linear.FEW, and TOKENS_FROM of cublas.py."""
    n, cols = shape_of(args)
    counts = [*(m for m in COUNTS if m < args.prompt), args.prompt]
    theirs: dict[int, float] = {}
    if why := cuda_torch.missing():
        board.note(f"Nothing to compare products of many rows with: {why}.")
    else:
        theirs = {m: cuda_torch.seconds(n, cols, m) for m in counts}
    for name in args.types:
        matrices, kinds, rows = Matrices(name, n, cols), ways(name, cols), []
        for m in counts:
            timed = _measured(board, matrices, m, kinds)
            best = min((one.seconds for one in timed.values()), default=float("nan"))
            times = [f"{timed[how].seconds * 1e3:.4f}" if how in timed else "" for how in kinds]
            compared = f"{theirs[m] / best:.0%}" if m in theirs else ""
            rows.append((str(m), *times, f"{2e-12 * n * cols * m / best:.1f}", compared))
            board.data[f"product of {m} {name}"] = {
                "seconds": {how: one.seconds for how, one in timed.items()},
                "how": {how: one.how for how, one in timed.items()},
                "torch": theirs.get(m),
            }
        header = ("Rows", *(f"ms, {how}" for how in kinds), "TFLOPS of the best", "Of torch in bf16")
        board.table(f"Products with {n} x {cols} in {name}", header, rows)


def ways(name: str, cols: int) -> tuple[str, ...]:
    """To make products with a type of weight here."""
    from halfbyte.runtime.backends.cuda import cublas
    from halfbyte.runtime.backends.cuda.executor import has_tensor_cores
    from halfbyte.runtime.backends.cuda.kernels import linear, tensor_floats
    from halfbyte.runtime.backends.cuda.shared import has_brain

    gpu = cuda.gpus[0]
    on_tensor_cores = name not in linear.FLOATS or name in tensor_floats.TYPES
    by_blas = cublas.is_used(cublas.LEAST) and cublas.tokens_from(name, cols) < cublas.NEVER
    return (
        ROWS,
        TILES,
        *([TENSOR_CORES] if on_tensor_cores and (package.SIMULATED or has_tensor_cores(gpu)) else []),
        *([BLAS] if by_blas and (package.SIMULATED or has_brain(gpu)) else []),
    )


def _measured(board: Board, matrices: Matrices, m: int, kinds: tuple[str, ...]) -> dict[str, Timed]:
    """Of each way; one that fails is told of, and has no time."""
    found = {}
    for how in kinds:
        try:
            found[how] = matrices.product(m, how)
        except Exception as error:
            board.note(f"**No product of {m} rows with {matrices.name} by {how}**: {told(error)}")
    return found
