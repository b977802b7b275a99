"""How threads take work from each other: every item once, whoever does it, in whatever order they ask."""

from __future__ import annotations

import threading
import time

import numba
import numpy as np
import pytest
from halfbyte.runtime.backends.cpu.kernels.share import chunk_of, next_chunk, next_item
from halfbyte.runtime.backends.cpu.kernels.walk import pause
from halfbyte.runtime.backends.cpu.simd.atomic import atomic_load
from halfbyte.runtime.backends.cpu.team_layout import CHUNK_BYTES, CHUNKS, QUEUE_BYTES
from numpy.typing import NDArray

from tests.kernel_harness import call, queue_of

THREADS = [1, 2, 3, 5, 7, 16]
PRIMES = [2, 3, 13, 97, 997]


@numba.njit(nogil=True)
def ask(queue, n, chunk, turn, tid, nth):
    return next_chunk(np.uint64(queue), n, chunk, turn, tid, nth)


@numba.njit(nogil=True)
def ask_item(queue, item, tid, nth):
    return next_item(np.uint64(queue), item, tid, nth)


@numba.njit(nogil=True)
def chunk_size(n, item_bytes, nth):
    return chunk_of(n, item_bytes, nth)


@numba.njit(nogil=True)
def work(queue, n, chunk, tid, nth, done, gate):
    """A kernel: marks its items in done [n]. With a gate (an address) it takes one chunk, and waits until it opens."""
    turn = np.int64(0)
    while True:
        start, stop, turn = next_chunk(np.uint64(queue), n, chunk, turn, tid, nth)
        if start == stop:
            break
        for i in range(start, stop):
            done[i] += 1
        while gate != 0 and atomic_load(np.uint64(gate)) == 0:
            pause(0)


class Threads:
    """Threads that have begun a call: each remembers where it is."""

    def __init__(self, nth: int, n: int, chunk: int, queue: bool = True) -> None:
        self.nth, self.n, self.chunk = nth, n, chunk
        self.memory = queue_of(nth)
        self.at = self.memory.ctypes.data if queue else 0
        self.turns = [0] * nth
        self.taken: list[list[int]] = [[] for _ in range(nth)]

    def ask(self, tid: int) -> bool:
        """Take a chunk; false when there is none left."""
        start, stop, self.turns[tid] = ask(self.at, self.n, self.chunk, self.turns[tid], tid, self.nth)
        self.taken[tid] += range(start, stop)
        assert 0 <= stop - start <= (self.chunk if self.at and self.nth > 1 else self.n)
        return bool(start < stop)

    def check(self) -> None:
        assert sorted(i for items in self.taken for i in items) == list(range(self.n))
        assert not any(self.ask(tid) for tid in range(self.nth)), "nothing is left for those who ask again"


@pytest.mark.parametrize("nth", THREADS)
@pytest.mark.parametrize("queue", [True, False])
def test_every_item_once_in_any_order(nth: int, queue: bool) -> None:
    rng = np.random.default_rng(nth)
    for n in (0, 1, nth - 1, nth, nth + 1, *PRIMES):
        for chunk in (1, 2, 5, 1000):
            threads = Threads(nth, n, chunk, queue)
            speed = rng.random(nth) ** 3  # some ask far more often than others
            alive = list(range(nth))
            while alive:
                weights = speed[alive] + 1e-3
                tid = int(rng.choice(alive, p=weights / weights.sum()))
                if not threads.ask(tid):
                    alive.remove(tid)
            threads.check()


@pytest.mark.parametrize("nth", THREADS[1:])
def test_one_thread_does_everything_when_the_others_do_not_come(nth: int) -> None:
    threads = Threads(nth, 997, 7)
    while threads.ask(nth // 2):
        pass
    assert len(threads.taken[nth // 2]) == 997
    threads.check()


def test_a_thread_reads_its_own_items_in_order_and_others_from_the_back() -> None:
    threads = Threads(2, 40, 5)
    assert [threads.ask(0) for _ in range(6)] == [True] * 6
    assert threads.taken[0] == [*range(20), *range(35, 40), *range(30, 35)]
    assert threads.ask(1)
    assert threads.taken[1] == [*range(20, 25)]


def test_without_a_queue_items_stay_where_they_are() -> None:
    threads = Threads(3, 10, 1, queue=False)
    for tid in (2, 0, 1):
        assert threads.ask(tid) and not threads.ask(tid)
    assert threads.taken == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]


@pytest.mark.parametrize("nth", THREADS[1:])
def test_others_take_the_items_of_a_thread_that_is_held_up(nth: int) -> None:
    n, chunk, queue = 997, 3, queue_of(nth)
    done, gate = np.zeros((nth, n), np.int64), np.zeros(1, np.int64)
    slow = nth - 1

    def thread(tid: int) -> threading.Thread:
        arguments = (queue.ctypes.data, n, chunk, tid, nth, done[tid], gate.ctypes.data if tid == slow else 0)
        return threading.Thread(target=work, args=arguments, daemon=True)

    threads = [thread(tid) for tid in range(nth)]
    threads[slow].start()
    try:
        while not done[slow].any():
            time.sleep(0.001)
        for other in threads[:slow]:
            other.start()
        for other in threads[:slow]:
            other.join(timeout=60)
            assert not other.is_alive()
        assert done[slow].sum() == chunk and done.sum() == n, "all but the chunk in its hands is done"
    finally:
        gate[0] = 1
        threads[slow].join(timeout=60)
    assert not threads[slow].is_alive()
    assert (done.sum(axis=0) == 1).all() and done[slow].sum() == chunk


@pytest.mark.parametrize("nth", THREADS)
def test_threads_at_once(nth: int) -> None:
    for n in (1, nth - 1, 50_021):
        queue, done = queue_of(nth), np.zeros((nth, n), np.int64)
        threads = [
            threading.Thread(target=work, args=(queue.ctypes.data, n, 2, tid, nth, done[tid], 0)) for tid in range(nth)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (done.sum(axis=0) == 1).all()


@pytest.mark.parametrize("nth", THREADS)
@pytest.mark.parametrize("queue", [True, False])
def test_every_large_item_once(nth: int, queue: bool) -> None:
    rng = np.random.default_rng(nth)
    for n in (0, 1, nth - 1, 53):
        memory = queue_of(nth)
        at = memory.ctypes.data if queue else 0
        mine = [ask_item(at, -1, tid, nth) for tid in range(nth)]
        done: list[int] = []
        alive = [tid for tid in range(nth) if mine[tid] < n]
        while alive:
            tid = int(rng.choice(alive))
            done.append(mine[tid])
            following = ask_item(at, mine[tid], tid, nth)
            assert following > mine[tid], "a kernel walks the items in order"
            mine[tid] = following
            alive = [tid for tid in alive if mine[tid] < n]
        assert sorted(done) == list(range(n))


def test_chunks_are_a_fraction_of_a_range_but_neither_tiny_nor_long() -> None:
    least, most = CHUNK_BYTES
    assert chunk_size(1600, 500, 2) == 1600 // 2 // CHUNKS
    assert chunk_size(1600, 4, 2) == least // 4
    assert chunk_size(1_600_000, 500, 2) == most // 500
    assert chunk_size(1600, 1 << 20, 2) == 1
    assert chunk_size(1, 1 << 20, 16) == 1
    assert chunk_size(0, 0, 3) == least


@pytest.mark.parametrize("kernel", ["linear_rows.F32", "linear_gemm.F32", "expert_rows.F32"])
@pytest.mark.parametrize("nth", THREADS)
def test_products_are_the_same_whoever_computes_a_row(kernel: str, nth: int, rng: np.random.Generator) -> None:
    experts = 3 if kernel.startswith("expert") else 1
    tokens, n, cols = 5, 131, 48
    weight = rng.standard_normal((experts * n, cols)).astype(np.float32)
    x = rng.standard_normal((tokens, cols)).astype(np.float32)
    arguments = {"w": weight, "row_bytes": 4 * cols, "n": n, "x": x, "cols": cols}
    if experts > 1:
        ids = rng.integers(0, experts, tokens).astype(np.int32)
        arguments |= {"ids": ids, "n_used": 1, "n_expert": experts, "shared": 1}
    else:
        arguments |= {"repeat": 1, "limit": tokens if "rows" in kernel else 0}

    def run(threads: int, queue: NDArray[np.uint8] | int) -> NDArray[np.float32]:
        out = np.full((tokens, n), np.nan, np.float32)
        call(kernel, nth=threads, tokens=tokens, out=out, queue=queue, **arguments)
        return out

    expected = run(1, 0)
    assert np.isfinite(expected).all()
    queue = queue_of(nth)
    assert (run(nth, 0) == expected).all()
    assert (run(nth, queue) == expected).all()
    assert queue.any() == (nth > 1), "one thread asks nobody"
    assert np.isnan(run(nth, queue)).all() or nth == 1, "an empty queue means that all is done: it has to be reset"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_lines_are_apart() -> None:
    assert QUEUE_BYTES >= 64
    assert queue_of(3).nbytes == 3 * QUEUE_BYTES
