"""The engine's thread, with a fake executor: results, cancelling, failures, closing."""

from __future__ import annotations

import os
import threading
import time

import pytest
from halfbyte.formats.errors import ContextOverflow, InvalidRequest, ResourceError
from halfbyte.runtime.engine.engine import Engine
from halfbyte.runtime.engine.errors import ExecutionError, ModelClosed
from halfbyte.runtime.engine.request import MAX_UNREAD, End
from halfbyte.runtime.step import PAGE

from .fakes import FakeExecutor, Greedy, continuation, start


def prompt(n: int, salt: int = 0) -> list[int]:
    return [(i * 7 + salt * 13) % 90 for i in range(n)]


def wait_until(condition, seconds: float = 5.0) -> None:
    end = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < end, "it did not happen in time"
        time.sleep(0.001)


def test_one_request(make_engine):
    assert start(make_engine(), prompt(100), 50).read() == continuation(prompt(100), 50)


def test_sixteen_threads_get_what_each_would_get_alone(make_engine):
    # Too little room for all at once, and slow enough that they meet: some are preempted.
    engine = make_engine(n_pages=24, max_tokens=48, seconds_per_token=0.0005)
    results: dict[int, list[int]] = {}

    def ask(i: int) -> None:
        results[i] = start(engine, prompt(20 + 5 * i, i % 3), 40 + i).read()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: continuation(prompt(20 + 5 * i, i % 3), 40 + i) for i in range(16)}
    assert engine.stats().num_preempted > 0
    wait_until(lambda: engine.stats().pages_available == 24)


def test_a_shared_prefix_is_computed_once(make_engine):
    engine = make_engine(n_pages=64)
    first = prompt(4 * PAGE)
    assert start(engine, first, 1).read() == continuation(first, 1)
    before = engine.stats().num_tokens
    second = [*first, 1, 2, 3]
    assert start(engine, second, 1).read() == continuation(second, 1)
    assert engine.stats().num_tokens - before == 3


def test_an_idle_engine_sleeps(make_engine):
    engine = make_engine()
    start(engine, prompt(5), 5).read()
    time.sleep(0.05)
    steps, cpu = engine.stats().num_steps, time.process_time()
    time.sleep(0.3)
    assert engine.stats().num_steps == steps
    assert time.process_time() - cpu < 0.05


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_cancel_releases_the_reader_and_the_executor_at_once(make_engine, phase):
    engine = make_engine(seconds_per_token=0.1)
    executor = engine.runner.executor
    request = start(engine, prompt(60 if phase == "prefill" else 1), 1000)
    if phase == "decode":
        request.next_event()
    assert executor.running.wait(5)
    time.sleep(0.02)
    begin = time.perf_counter()
    request.cancel()
    assert request.next_event() == End("cancelled")
    assert time.perf_counter() - begin < 0.05
    wait_until(lambda: executor.num_cancelled == 1, 0.2)
    assert time.perf_counter() - begin < 0.1
    executor.seconds_per_token = 0.0
    assert start(engine, prompt(9), 9).read() == continuation(prompt(9), 9)


def test_cancel_while_queued_costs_nothing(make_engine):
    engine = make_engine(n_pages=4, seconds_per_token=0.005)
    first = start(engine, prompt(3 * PAGE), 10)
    second = start(engine, prompt(3 * PAGE, 1), 10)
    wait_until(lambda: engine.stats().num_waiting == 1)
    second.cancel()
    assert second.next_event() == End("cancelled")
    assert first.read() == continuation(prompt(3 * PAGE), 10)
    assert engine.stats().num_tokens == 3 * PAGE + 9


def test_cancelling_a_long_prompt_does_not_change_what_others_get(make_engine):
    engine = make_engine(max_tokens=64, seconds_per_token=0.004)
    executor = engine.runner.executor
    small = start(engine, prompt(10), 30)
    first = small.next_event()
    large = start(engine, prompt(1000, 1), 10)
    wait_until(lambda: executor.steps[-1].n_tokens > 1)
    large.cancel()
    assert [first, *small.read()] == continuation(prompt(10), 30)
    assert executor.num_cancelled == 1  # the step was mostly the prompt's, so it was given up and run again without it


def test_cancelling_a_small_part_of_a_step_lets_it_finish(make_engine):
    engine = make_engine(max_tokens=64, seconds_per_token=0.004)
    executor = engine.runner.executor
    small = start(engine, prompt(10), 1000)
    small.next_event()
    large = start(engine, prompt(100, 1), 1)
    wait_until(lambda: executor.steps[-1].n_tokens > 1)
    small.cancel()
    assert large.read() == continuation(prompt(100, 1), 1)
    assert executor.num_cancelled == 0


def test_a_failing_step_fails_its_requests_and_nobody_else(make_engine):
    engine = make_engine()
    engine.runner.executor.fail_next = ZeroDivisionError("kernel")
    with pytest.raises(ExecutionError, match="ZeroDivisionError: kernel") as caught:
        start(engine, prompt(5), 5).read()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert start(engine, prompt(5), 5).read() == continuation(prompt(5), 5)
    assert engine.stats().pages_available == 64


def test_an_error_of_ours_is_not_wrapped(make_engine):
    engine = make_engine()
    engine.runner.executor.fail_next = ResourceError("no memory")
    with pytest.raises(ResourceError, match="no memory"):
        start(engine, prompt(5), 5).read()


@pytest.mark.parametrize("kind", [KeyError, SystemExit, KeyboardInterrupt])
def test_a_failing_sampler_ends_its_own_request_only(make_engine, kind):
    engine = make_engine()

    class Broken(Greedy):
        def take(self, chunk, rows) -> None:
            raise kind("processor")

    bad = Broken(prompt(5), 5)
    engine.submit(bad, 10)
    good = start(engine, prompt(5, 1), 20)
    with pytest.raises(ExecutionError, match="processor") as caught:
        bad.read()
    assert isinstance(caught.value.__cause__, kind)
    assert good.read() == continuation(prompt(5, 1), 20)
    assert not engine.is_closed


def test_a_request_that_can_never_fit_is_refused_before_any_work(make_engine):
    engine = make_engine(n_pages=2)
    with pytest.raises(ContextOverflow) as caught:
        start(engine, prompt(2 * PAGE), 1)
    assert (caught.value.needed, caught.value.available) == (2 * PAGE + 1, 2 * PAGE)
    assert engine.stats().num_steps == 0


def test_a_slow_reader_pauses_its_own_request(make_engine):
    engine = make_engine(n_pages=64)
    lazy = start(engine, prompt(5), 1000)
    wait_until(lambda: lazy.is_paused)
    time.sleep(0.05)
    assert lazy.taken == MAX_UNREAD
    assert start(engine, prompt(5, 1), 20).read() == continuation(prompt(5, 1), 20)
    assert lazy.read() == continuation(prompt(5), 1000)


def test_a_reader_that_never_comes_back_does_not_lock_out_others(make_engine):
    engine = make_engine(n_pages=12)
    lazy = start(engine, prompt(5), 12 * PAGE - 5)
    wait_until(lambda: lazy.is_paused)
    assert start(engine, prompt(5, 1), 8 * PAGE).read() == continuation(prompt(5, 1), 8 * PAGE)
    assert lazy.read() == continuation(prompt(5), 12 * PAGE - 5)


def test_closing_ends_running_and_queued_requests(make_engine):
    engine = make_engine(n_pages=4, seconds_per_token=0.01)
    executor = engine.runner.executor
    requests = [start(engine, prompt(3 * PAGE, i), 10) for i in range(3)]
    assert executor.running.wait(5)
    begin = time.perf_counter()
    engine.close()
    assert time.perf_counter() - begin < 0.2
    for request in requests:
        with pytest.raises(ModelClosed, match="while the request was running"):
            request.read()
    with pytest.raises(ModelClosed):
        start(engine, prompt(3), 3)
    assert executor.is_closed
    engine.close()


def test_an_engine_that_never_ran_closes_its_executor():
    executor = FakeExecutor()
    Engine(executor).close()
    assert executor.is_closed


def test_a_fault_in_the_policy_reaches_everybody_who_waits(make_engine, monkeypatch):
    engine = make_engine()
    monkeypatch.setattr(engine.scheduler, "schedule", lambda: 1 / 0)
    with pytest.raises(ExecutionError, match="ZeroDivisionError"):
        start(engine, prompt(3), 3).read()
    with pytest.raises(ModelClosed):
        start(engine, prompt(3), 3)


def test_a_processor_cannot_wait_for_its_own_engine(make_engine):
    engine = make_engine()

    class Nested(Greedy):
        def take(self, chunk, rows) -> None:
            start(engine, prompt(3), 3)

    request = Nested(prompt(3), 3)
    engine.submit(request, 6)
    with pytest.raises(InvalidRequest, match="processor"):
        request.read()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_gets_an_error_instead_of_a_hang(make_engine, monkeypatch):
    engine = make_engine()
    start(engine, prompt(3), 3).read()
    monkeypatch.setattr(engine, "_pid", os.getpid() + 1)  # what a child sees; forking a threaded test process is unsafe
    with pytest.raises(InvalidRequest, match="fork"):
        start(engine, prompt(3), 3)
    engine.close()
    assert not engine.is_closed
    monkeypatch.undo()


def test_engines_leave_no_thread_behind():
    before = threading.active_count()
    for _ in range(50):
        engine = Engine(FakeExecutor(n_pages=4))
        start(engine, prompt(3), 2).read()
        engine.close()
    assert threading.active_count() == before


def test_an_idle_engine_holds_on_to_no_request(make_engine):
    import gc
    import weakref

    engine = make_engine()
    request = start(engine, prompt(3), 2)
    request.read()
    gone = weakref.ref(request)
    del request
    wait_until(lambda: (gc.collect(), gone() is None)[1])
