"""What all threads together read from memory at most, in bytes per second.

How memory is read fastest differs between machines, and changes with their neighbours: several forms are tried, and the
best ones again in every round. The limit of the arithmetic is measured by Halfbyte itself (`halfbyte bench --profile`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from halfbyte.runtime.backends.cpu.simd.emit import I64, Emitter, Vec
from halfbyte.runtime.backends.cpu.simd.types import emitted
from llvmlite import ir
from numba.core import types

LINE = 64  # bytes of a cache line
UNROLL = 4  # lines read at once from each stream
BUFFER = 1 << 29  # bytes read in a pass: more than any cache holds
FORMS = ((1, 0), (1, 512), (1, 1024), (2, 0), (2, 512), (4, 0), (4, 512), (4, 2048))  # streams, bytes prefetched ahead
KEPT = 3  # forms that are measured again in every round
PASSES = 3

Form = tuple[Callable[[int, int], int], int]  # (address, lines) -> a number, so that nothing can be left out; streams


class Bandwidth:
    """Measures on `threads` threads, as often as asked; use as a context manager."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)
        self._memory = np.ones(BUFFER + LINE, np.uint8)
        self._start = -(-self._memory.ctypes.data // LINE) * LINE
        self._forms = sorted((_compiled(*form) for form in FORMS), key=self._read, reverse=True)[:KEPT]

    def __enter__(self) -> Bandwidth:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def measure(self) -> float:
        """Bytes per second of the best form's best pass."""
        return max(self._read(form) for form in self._forms)

    def _read(self, form: Form) -> float:
        probe, streams = form
        lines = BUFFER // self._threads // LINE // streams // UNROLL * UNROLL  # of one stream
        part = lines * streams * LINE
        return self._threads * part / min(self._pass(probe, part, lines) for _ in range(PASSES))

    def _pass(self, probe: Callable[[int, int], int], part: int, lines: int) -> float:
        """Seconds until all threads are done with their parts."""
        begin = time.perf_counter()
        for running in [self._pool.submit(probe, self._start + t * part, lines) for t in range(self._threads)]:
            running.result()
        return time.perf_counter() - begin


def _compiled(streams: int, ahead: int) -> Form:
    """Sums `lines` lines of each of `streams` streams, which lie one behind the other. Does not hold the GIL."""

    @emitted(types.int64, types.uint64, types.int64)
    def read(e: Emitter, at: Vec, lines: Vec) -> Vec:
        starts = [e.at(at.ll, e.b.mul(lines.ll, ir.Constant(I64, LINE * stream))) for stream in range(streams)]

        def body(i: ir.Value, sums: list[Vec]) -> list[Vec]:
            places = [(e.index(start, i, LINE * UNROLL), LINE * line) for start in starts for line in range(UNROLL)]
            for place, offset in places if ahead else []:
                e.prefetch(place, offset + ahead)
            return [total + e.load(I64, 8, *place) for total, place in zip(sums, places, strict=True)]

        first = [e.zero(I64, 8) for _ in range(streams * UNROLL)]
        total, *others = e.loop(e.b.udiv(lines.ll, ir.Constant(I64, UNROLL)), first, body)
        for other in others:
            total = total + other
        return e.sum(total)

    def call(at, lines):  # type: ignore[no-untyped-def]
        return read(at, lines)

    made: Any = numba.njit(types.int64(types.uint64, types.int64), nogil=True)(call)
    return made, streams


def main() -> None:
    from halfbyte.runtime.topology import usable_cpus

    for threads in sorted({1, usable_cpus()}):
        with Bandwidth(threads) as bandwidth:
            print(f"{threads} threads: {bandwidth.measure() / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
