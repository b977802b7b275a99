"""How many threads are used, on machines that were made up: seconds and long waits of a step by number of threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from halfbyte.runtime.backends.cpu.crowding import LATE, PATIENCE, TRIAL, Crowding

Machine = Callable[[int], tuple[float, int]]


def run(crowding: Crowding, machine: Machine, steps: int) -> list[int]:
    """The number of threads of each step."""
    used = []
    for _ in range(steps):
        used.append(crowding.threads)
        crowding.note(*machine(crowding.threads))
    return used


def quiet(threads: int) -> tuple[float, int]:
    return 0.04 / threads, 0


def crowded_above(cores: int) -> Machine:
    """More threads than this wait for each other, and everyone notices."""
    return lambda threads: (0.04 / threads, 0) if threads <= cores else (0.2, 200)


@pytest.mark.parametrize("most", [1, 2, 16])
def test_nothing_is_tried_on_a_quiet_machine(most: int) -> None:
    assert run(Crowding(most), quiet, 2000) == [most] * 2000


def test_a_few_long_waits_are_nothing() -> None:
    rng = np.random.default_rng(1)
    assert run(Crowding(2), lambda n: (0.02, LATE), 500) == [2] * 500
    assert run(Crowding(2), lambda n: (0.02, 50 * (rng.random() < 0.02)), 500) == [2] * 500


@pytest.mark.parametrize(("most", "cores"), [(2, 1), (3, 1), (8, 7), (8, 3), (16, 2)])
def test_threads_that_are_held_up_are_left_out(most: int, cores: int) -> None:
    used = run(Crowding(most), crowded_above(cores), 400)
    assert set(used[100:]) <= {cores, cores + 1}
    assert np.mean(np.array(used[100:]) == cores) > 0.9, "and only now and then is it tried again"


def test_they_come_back_when_the_machine_is_quiet_again() -> None:
    crowding = Crowding(4)
    run(crowding, crowded_above(2), 1000)
    used = run(crowding, quiet, 4000)
    assert used[-1] == 4
    spent = sum(0.04 / n for n in used[: used.index(4)])
    assert spent < 2 * PATIENCE[1]
    assert run(crowding, quiet, 1000) == [4] * 1000


def test_long_waits_alone_do_not_cost_a_thread() -> None:
    """Two threads in trouble may still be faster than one."""
    used = run(Crowding(2), lambda n: (0.03, 100) if n == 2 else (0.04, 0), 3000)
    assert used[-1] == 2
    assert 0 < used.count(1) <= TRIAL * 10, "it is tried ever less often"


def test_prompts_keep_to_what_has_proved_best() -> None:
    crowding = Crowding(2)
    for _ in range(200):
        crowding.note(*crowded_above(1)(crowding.threads))
        assert crowding.settled in (1, 2)
    while crowding.threads == 1:  # until a trial
        crowding.note(*crowded_above(1)(crowding.threads))
    assert crowding.threads == 2 and crowding.settled == 1


def test_a_trial_that_is_clear_ends_early() -> None:
    crowding = Crowding(2)
    crowding.note(0.02, 100)
    used = run(crowding, lambda n: (0.02, 100) if n == 2 else (1.0, 0), 30)
    assert used.count(1) == 2
