"""How far ahead rows of weights are asked for.

Rows follow each other in the file, so this crosses into the next rows. A line comes into the second-level cache first,
from where it is FAR bytes ahead, because many requests to memory can be open there, then into the first-level cache.

Of 256 MB of rows, two threads, GB/s; one request 3,072 bytes ahead, and these two: on a Zen 4 Q4_0 30 and 31, Q4_K 28
and 30, Q8_0 43 and 46; on a Sapphire Rapids Q4_0 24 and 26, Q4_K 23 and 24, Q8_0 23 and 24, F16 22 and 25, where no
request at all gives 14 to 16.
"""

from __future__ import annotations

from llvmlite import ir

from ...simd.emit import Emitter

NEAR, FAR = 2048, 8192


def ask_ahead(e: Emitter, at: ir.Value, n_bytes: int) -> None:
    """While n_bytes at `at` are worked on, ask for as many further on."""
    for line in range(0, n_bytes, 64):
        e.prefetch(at, NEAR + line)
        e.prefetch(at, FAR + line, near=False)
