"""The parts of benchmarks.cuda, and how one is run so that what goes wrong in it takes nothing else along."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from .cuda_checks import checks
from .cuda_goals import Board
from .cuda_kernels import copies, kernels
from .cuda_models import model, offload
from .cuda_products import products

Part = Callable[[Board, argparse.Namespace], None]
PARTS: dict[str, Part] = {
    "copies": copies, "kernels": kernels, "products": products, "model": model, "offload": offload, "checks": checks,
}  # fmt: skip


def run(name: str, part: Part, board: Board, args: argparse.Namespace) -> Board:
    """The board with what was measured; where the part failed, with why."""
    try:
        part(board, args)
    except (Exception, SystemExit) as error:
        board.fail(name, error)
    return board


def run_apart(name: str, part: Part, board: Board, args: argparse.Namespace) -> Board:
    """In a process of its own: after a kernel that goes wrong the process that launched it can use the GPU no more."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(run, name, part, board, args).result()
        except Exception as error:  # the process itself ended
            board.fail(name, error)
    return board
