"""The thread team: every call runs on every thread, once, in order; it sleeps when idle and ends when told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from halfbyte.runtime.backends.cpu.args import STEP, args_of
from halfbyte.runtime.backends.cpu.compile import ensure_compiled
from halfbyte.runtime.backends.cpu.objects import load
from halfbyte.runtime.backends.cpu.team import FUNCTIONS, Team


@pytest.fixture(params=[1, 2, 3, 5])
def team(request: pytest.FixtureRequest) -> Iterator[Team]:
    ensure_compiled([*FUNCTIONS, "add"], workers=2)
    team = Team(request.param)
    yield team
    team.close()


class Counter:
    """n calls of x += 1 over `size` numbers, a barrier before each."""

    def __init__(self, size: int, calls: int) -> None:
        self.x, self.one = np.zeros(size, np.float32), np.ones(size, np.float32)
        self.args = np.zeros((), args_of("add"))
        for name, array in (("x", self.x), ("y", self.one), ("out", self.x)):
            self.args[name] = array.ctypes.data
        self.args["cols"], self.args["repeat"] = size, 1
        self.table = np.array([[load("add"), self.args.ctypes.data, 1]] * calls, np.int64)
        self.step = np.zeros((), STEP)
        self.step["n_tokens"] = 1
        self.cancel = np.zeros(1, np.int64)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 997])
def test_every_number_is_counted_by_exactly_one_thread(team: Team, size: int) -> None:
    counter = Counter(size, calls=7)
    for run in range(1, 4):
        assert team.run(counter.table, counter.step, counter.cancel) == 0
        assert np.array_equal(counter.x, np.full(size, 7.0 * run))


def test_an_empty_plan_and_no_rows(team: Team) -> None:
    counter = Counter(10, calls=3)
    assert team.run(counter.table[:0], counter.step, counter.cancel) == 0
    counter.step["n_tokens"] = 0
    team.run(counter.table, counter.step, counter.cancel)
    assert not counter.x.any()


def test_it_wakes_after_sleeping(team: Team) -> None:
    counter = Counter(300, calls=2)
    for _ in range(5):
        team.run(counter.table, counter.step, counter.cancel)
        time.sleep(0.03)  # far beyond the time it spins
    assert (counter.x == 10).all()


def test_any_number_of_its_threads_may_walk_a_step(team: Team) -> None:
    """Also right after another number, and after sleeping: nobody walks a step twice, or one that is not his."""
    counter, rng = Counter(997, calls=5), np.random.default_rng(team.n)
    for i in range(1, 301):
        assert team.run(counter.table, counter.step, counter.cancel, int(rng.integers(1, team.n + 1))) == 0
        assert (counter.x == 5 * i).all()
        if i % 100 == 0:
            time.sleep(0.01)
    assert team.run(counter.table, counter.step, counter.cancel, 99) == 0, "no more than there are"
    assert (counter.x == 5 * 301).all()


def test_threads_that_are_left_out_sleep(team: Team) -> None:
    if team.n == 1:
        pytest.skip("there are none")
    counter = Counter(64 * 64, calls=200)
    team.run(counter.table, counter.step, counter.cancel)
    before, begin = time.process_time(), time.perf_counter()
    while time.perf_counter() - begin < 0.3:
        team.run(counter.table, counter.step, counter.cancel, 1)
    assert time.process_time() - before < 1.3 * (time.perf_counter() - begin)


def test_idle_after_a_burst_with_more_threads_than_processors() -> None:
    ensure_compiled([*FUNCTIONS, "add"], workers=2)
    team = Team(8)
    counter = Counter(997, calls=20)
    for _ in range(100):
        team.run(counter.table, counter.step, counter.cancel)
    assert (counter.x == 2000).all()
    time.sleep(0.3)  # each spins for a millisecond of its own time, on cores that others may be using
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05
    team.close()


def test_cancel_stops_at_the_next_barrier(team: Team) -> None:
    counter = Counter(64 * 64, calls=200_000)
    timer = threading.Timer(0.05, lambda: counter.cancel.__setitem__(0, 1))
    timer.start()
    start = time.perf_counter()
    team.run(counter.table, counter.step, counter.cancel)
    elapsed = time.perf_counter() - start
    assert 0 < counter.x[0] < 200_000
    assert elapsed < 5
    assert (counter.x == counter.x[0]).all(), "all threads stopped at the same call"


def test_idle_threads_cost_nothing(team: Team) -> None:
    counter = Counter(100, calls=1)
    team.run(counter.table, counter.step, counter.cancel)
    time.sleep(0.1)  # let them fall asleep
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


def test_closing_ends_the_threads() -> None:
    ensure_compiled([*FUNCTIONS, "add"], workers=1)
    before = threading.active_count()
    counter = Counter(100, calls=1)
    for i in range(1000):  # many, because threads must meet the shutdown in every state, also between two steps
        team = Team(4)
        if i % 2:
            team.run(counter.table, counter.step, counter.cancel)
        team.close()
    assert threading.active_count() == before
