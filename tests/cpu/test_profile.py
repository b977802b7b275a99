"""Stamps of real steps: every call has its times, they fit into the wall time, and nobody stamps when it is off."""

from __future__ import annotations

import time
from collections.abc import Iterator

import halfbyte
import pytest
from halfbyte.runtime.backends.cpu.executor import CPUExecutor
from halfbyte.runtime.backends.cpu.floors import Floors, measure
from halfbyte.runtime.backends.cpu.profile import Profiler, StepTimes
from halfbyte.runtime.backends.cpu.work import op_of, tensor_of, work_of
from halfbyte.tools.bench import BANNED

PROMPT = list(range(3, 43))
TOKENS = 6


@pytest.fixture(params=[1, 2], scope="module", ids=lambda n: f"{n} threads")
def model(request: pytest.FixtureRequest) -> Iterator[halfbyte.Model]:
    with halfbyte.Model.load("stories260k", threads=request.param, context=128) as model:
        yield model


def generate(model: halfbyte.Model, first: int) -> None:
    """A prompt that no run before had, so that nothing comes from the cache."""
    ends = dict.fromkeys(model.tokenizer.eog_ids, BANNED)
    model.generate([first, *PROMPT], max_tokens=TOKENS + 1, temperature=0, logit_bias=ends).read()


def executor_of(model: halfbyte.Model) -> CPUExecutor:
    assert isinstance(model.executor, CPUExecutor)
    return model.executor


@pytest.fixture(scope="module")
def steps(model: halfbyte.Model) -> list[StepTimes]:
    with Profiler(executor_of(model)) as profiler:
        began = time.perf_counter()
        generate(model, 100)
        elapsed = time.perf_counter() - began
        steps = profiler.take()
        assert profiler.take() == []
    assert sum(step.wall for step in steps) <= elapsed
    return steps


def test_every_step_is_there(steps: list[StepTimes]) -> None:
    assert [step.step.n_tokens for step in steps] == [len(PROMPT) + 1] + [1] * TOKENS
    assert [step.step.is_prompt for step in steps] == [True] + [False] * TOKENS


def test_times_add_up_to_the_wall_time(steps: list[StepTimes]) -> None:
    for step in steps:
        assert (step.busy > 0).all(), "every call took time on at least one thread"
        assert step.wait.sum() >= 0
        assert 0 < step.busy.sum() < step.wall, "clocks run at the same speed, and no call is counted twice"
        assert 0 <= step.start < step.wall
        assert step.start + step.busy.sum() + step.wait.sum() == pytest.approx(step.wall)


def test_every_node_and_tensor_is_there(model: halfbyte.Model, steps: list[StepTimes]) -> None:
    layers = range(model.n_layer)
    for step in steps:
        nodes = {call.node.name for call in step.calls}
        assert {f"blk.{i}.{name}" for i in layers for name in ("attn_norm", "attn_q", "attention", "ffn_down")} <= nodes
        tensors = {tensor for call in step.calls for tensor in tensor_of(call).split("+")}  # fused ones have several
        assert tensors - {""} == {
            "token_embd", "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up",
            "ffn_down", "output_norm", "output (tied)", "kv cache",
        }  # fmt: skip
        assert {"embed", "rope", "kv_store", "attention"} <= {op_of(call) for call in step.calls}


def test_a_token_reads_every_weight_once(model: halfbyte.Model, steps: list[StepTimes]) -> None:
    executor, step = executor_of(model), steps[-1]
    weights = {w.name: w for call in step.calls for w in call.node.weights.values()}
    embedding = weights["token_embd.weight"]  # used twice: a row of it, and all of it
    work = [work_of(call, step.step, executor.kv) for call in step.calls if tensor_of(call) != "kv cache"]
    everything = sum(w.data.nbytes for w in weights.values())
    assert sum(w.n_bytes for w in work) == everything + embedding.data.shape[-1]
    assert sum(w.macs for w in work) == sum(w.n_rows * w.cols for w in weights.values() if len(w.shape) == 2)


def test_off_means_off(model: halfbyte.Model) -> None:
    executor = executor_of(model)
    with Profiler(executor) as profiler:
        generate(model, 101)
        assert profiler._stamps.any()
    taken = len(profiler.take())
    assert taken == 1 + TOKENS
    profiler._stamps[:] = 0
    generate(model, 102)
    assert not profiler._stamps.any()
    assert profiler.take() == []
    assert executor.recorder is None


def test_floors_are_plausible(model: halfbyte.Model, steps: list[StepTimes]) -> None:
    executor = executor_of(model)
    found: Floors = measure(executor)
    assert 1e8 < found.read < 1e13
    assert 1e8 < found.float32 < 1e14
    assert 1e8 < found.int8 < 1e15
    # a twentieth: probe and step may have met with quite different neighbours on a busy machine
    for step in steps:
        floor = sum(found.seconds(work_of(call, step.step, executor.kv)) for call in step.calls)
        assert step.busy.sum() > floor / 20, "stamps lie around the calls, not before or behind them"
    generate(model, 103)  # the team is as it was
