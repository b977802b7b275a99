"""How far ahead rows of weights are asked for.

Rows follow each other in the file, so this crosses into the next rows. A line comes into the second-level cache first,
from far ahead, because many requests to memory can be open there, then into the first-level cache.
`python -m benchmarks.ahead` compares this with other distances; its table is benchmarks/results/ahead.md.
"""

from __future__ import annotations

from llvmlite import ir

from ...simd.emit import Emitter

REQUESTS = ((2048, True), (8192, False))  # bytes ahead, and whether into the first-level cache


def ask_ahead(e: Emitter, at: ir.Value, n_bytes: int) -> None:
    """While n_bytes at `at` are worked on, ask for as many further on."""
    for line in range(0, n_bytes, 64):
        for ahead, near in REQUESTS:
            e.prefetch(at, ahead + line, near=near)
