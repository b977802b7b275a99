"""What the machine can do at most: bytes read from memory and int8 products, each per second, by all threads.

Code is made the way the kernels are made, so a limit is one of this processor and not of a compiler. How memory is read
fastest differs between machines: `Floors` tries several forms, and keeps those that were fastest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from halfbyte.runtime.backends.cpu.features import target
from halfbyte.runtime.backends.cpu.simd.dot import dot
from halfbyte.runtime.backends.cpu.simd.emit import I8, I32, I64, Emitter, Vec
from halfbyte.runtime.backends.cpu.simd.types import emitted
from llvmlite import ir
from numba.core import types

LINE = 64  # bytes of a cache line
UNROLL = 4  # lines read at once from each stream
BUFFER = 1 << 29  # bytes read in a pass: more than any cache holds
FORMS = ((1, 0), (1, 512), (1, 1024), (2, 0), (2, 512), (4, 0), (4, 512), (4, 2048))  # streams, bytes prefetched ahead
KEPT = 3  # forms that are measured again in every round
PASSES = 3
STEPS = 64  # dot products of a register in the small loop: 64 columns x 4 of a panel stay in the first-level cache
PRODUCT_LOOPS = 20_000

Probe = Callable[[int, int], int]  # address, count -> a number, so that nothing can be left out


class Floors:
    """Measures on `threads` threads, as often as asked; use as a context manager."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)
        self._memory = np.ones(BUFFER + LINE, np.uint8)
        self._products = _compiled(_products)
        forms = [(_compiled(_reader(*form)), form[0]) for form in FORMS]
        self._forms = sorted(forms, key=self._read, reverse=True)[:KEPT]

    def __enter__(self) -> Floors:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def bandwidth(self) -> float:
        """Bytes a second that all threads together read sequentially: the best form's best pass."""
        return max(self._read(form) for form in self._forms)

    def peak(self) -> float:
        """int8 multiply-adds a second of all threads together: tiles of a panel in the first-level cache, no scales."""
        registers, tokens = target().isa.gemm_tile
        per_call = PRODUCT_LOOPS * STEPS * registers * tokens * target().isa.lanes * 4
        return max(self._rate(self._products, lambda _: (self._start, PRODUCT_LOOPS), per_call) for _ in range(PASSES))

    @property
    def _start(self) -> int:
        return -(-self._memory.ctypes.data // LINE) * LINE

    def _read(self, form: tuple[Probe, int]) -> float:
        probe, streams = form
        lines = BUFFER // self._threads // LINE // streams // UNROLL * UNROLL  # of one stream
        part = lines * streams * LINE
        return max(self._rate(probe, lambda t: (self._start + t * part, lines), part) for _ in range(PASSES))

    def _rate(self, probe: Probe, arguments: Callable[[int], tuple[int, int]], amount: int) -> float:
        """`amount` per thread and call, by the time until all threads are done."""
        begin = time.perf_counter()
        for running in [self._pool.submit(probe, *arguments(thread)) for thread in range(self._threads)]:
            running.result()
        return amount * self._threads / (time.perf_counter() - begin)


def _compiled(emit: Callable[..., Vec]) -> Probe:
    """A function without the GIL, from what emits its body."""
    body = emitted(types.int64, types.uint64, types.int64)(emit)

    def call(at, count):  # type: ignore[no-untyped-def]
        return body(at, count)

    made: Any = numba.njit(types.int64(types.uint64, types.int64), nogil=True)(call)
    probe: Probe = made
    return probe


def _reader(streams: int, ahead: int) -> Callable[..., Vec]:
    """Sums all lines of `streams` streams that lie one behind the other, `count` lines each."""

    def emit(e: Emitter, at: Vec, count: Vec) -> Vec:
        starts = [e.at(at.ll, e.b.mul(count.ll, ir.Constant(I64, LINE * stream))) for stream in range(streams)]

        def body(i: ir.Value, sums: list[Vec]) -> list[Vec]:
            places = [(e.index(start, i, LINE * UNROLL), LINE * line) for start in starts for line in range(UNROLL)]
            for place, offset in places if ahead else []:
                e.prefetch(place, offset + ahead)
            return [total + e.load(I64, 8, *place) for total, place in zip(sums, places, strict=True)]

        first = [e.zero(I64, 8) for _ in range(streams * UNROLL)]
        return _sum(e, e.loop(e.b.udiv(count.ll, ir.Constant(I64, UNROLL)), first, body))

    return emit


def _products(e: Emitter, at: Vec, count: Vec) -> Vec:
    """The inner loop of the GEMM over one panel, `count` times: loads, broadcasts and dot products of one tile."""
    registers, tokens = e.isa.gemm_tile
    lanes = e.isa.lanes

    def step(i: ir.Value, sums: list[Vec]) -> list[Vec]:
        panel, codes = e.index(at.ll, i, 4 * lanes * registers), e.index(at.ll, i, 4)
        weights = [e.load(I8, 4 * lanes, panel, 4 * lanes * r) for r in range(registers)]
        result = []
        for t in range(tokens):
            four = e.bitcast(e.splat(e.load(I32, 0, codes, 4 * STEPS * t), lanes), I8, 4 * lanes)
            result += [dot(e, sums[t * registers + r], weights[r], four, 7) for r in range(registers)]
        return result

    def panel(_: ir.Value, sums: list[Vec]) -> list[Vec]:
        return e.loop(ir.Constant(I64, STEPS), sums, step)

    return _sum(e, e.loop(count.ll, [e.zero(I32, lanes) for _ in range(registers * tokens)], panel))


def _sum(e: Emitter, vectors: list[Vec]) -> Vec:
    """All lanes of all vectors, int64."""
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    lanes = [total.lane(i) for i in range(total.n)]
    result = lanes[0]
    for lane in lanes[1:]:
        result = result + lane
    return result if result.element == I64 else Vec(e, e.b.sext(result.ll, I64))


def main() -> None:
    from halfbyte.runtime.topology import usable_cpus

    from .machine import cpu_name

    for threads in sorted({1, usable_cpus()}):
        with Floors(threads) as floors:
            print(f"{cpu_name()}, {threads} threads: ", end="")
            print(f"{floors.bandwidth() / 1e9:.1f} GB/s read, {floors.peak() / 1e9:.0f} GMAC/s int8")


if __name__ == "__main__":
    main()
