"""How far ahead rows of weights are asked for.

Rows follow each other in the file, so this crosses into the next rows. A line comes into the second-level cache first,
from far ahead, because many requests to memory can be open there, then into the first-level cache.

Zen reads ahead well by itself where whole lines are read in order: there, requests only take the places of its own. The
distances of others are those of a Sapphire Rapids, where the two should be near each other, and nearest for numbers
that are read as they are. `python -m benchmarks.ahead` compares this with other ways; its tables are ahead.md in
benchmarks/results and in its folder sapphire-rapids.
"""

from __future__ import annotations

from llvmlite import ir

from ...args import ROWS_AT_ONCE
from ...features import target
from ...simd.emit import Emitter

# Bytes ahead, and whether into the first-level cache.
if target().cpu.startswith("znver"):
    OF_CODES: tuple[tuple[int, bool], ...] = ((2048, True), (8192, False))
    OF_NUMBERS: tuple[tuple[int, bool], ...] = ()
else:
    OF_CODES, OF_NUMBERS = ((4096, True), (6144, False)), ((5120, True), (6144, False))


def ask_ahead(e: Emitter, at: ir.Value, n_bytes: int, *, numbers: bool = False) -> None:
    """While n_bytes at `at` are worked on, ask for as many further on. `numbers`: they are read as they are."""
    for line in range(0, n_bytes, 64):
        for ahead, near in OF_NUMBERS if numbers else OF_CODES:
            e.prefetch(at, ahead + line, near=near)


def ask_rows_ahead(e: Emitter, at: ir.Value, n_bytes: int, row_bytes: ir.Value) -> None:
    """The same where rows are read in parts: the same columns of the next row, and of as many rows on as are read
    before the next part. What follows in the file is read later, or has been.
    """
    group = e.b.mul(row_bytes, ir.Constant(row_bytes.type, ROWS_AT_ONCE))
    for distance, near in ((row_bytes, True), (group, False)):
        for line in range(0, n_bytes, 64):
            e.prefetch(e.b.add(at, distance), line, near=near)
