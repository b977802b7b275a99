"""Products in bfloat16 by torch, on the same GPU: what prompts are held against."""

from __future__ import annotations

import statistics
from functools import cache
from typing import Any

from .cuda_device import MOST, REPEATS

L2_BYTES, LAUNCHES = 256 << 20, 20  # more than any GPU's cache; of a recording, at least


def missing() -> str:
    """Why there is nothing to compare with; "" where there is."""
    try:
        import torch
    except ImportError:
        return "torch is missing: pip install torch"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU: pip install --force-reinstall torch"
    return ""


@cache
def seconds(n: int, cols: int, m: int) -> float:
    """Of m rows times a matrix [n, cols], by events around many of them in one recording; matrices take turns."""
    import torch

    turns = min(MOST, L2_BYTES // (2 * n * cols) + 2)
    rounds = -(-LAUNCHES // turns)
    x, *weights = (torch.randn(r, cols, device="cuda", dtype=torch.bfloat16) for r in (m, *(n for _ in range(turns))))
    out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)

    def products() -> None:
        for i in range(rounds * turns):
            torch.matmul(x, weights[i % turns].T, out=out)

    replay = _recorded(torch, products)
    times = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times) / (rounds * turns)


def _recorded(torch: Any, launches: Any) -> Any:
    """As torch wants it: after a run on another stream."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        launches()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launches()
    graph.replay()
    return graph.replay
