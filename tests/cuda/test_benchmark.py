"""What benchmarks.cuda promises beside its numbers: every goal is told of, and nothing that fails takes others along.

Its parts themselves run in tests/cuda/checks/check_benchmark.py.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed: pip install numba-cuda"
)

from benchmarks import cuda, cuda_checks, cuda_device, cuda_goals, cuda_kernels, cuda_parts, cuda_torch  # noqa: E402
from benchmarks.cuda_goals import Board  # noqa: E402

NO_ARGUMENTS = argparse.Namespace()
MUST_SHOW = [
    *((f"one row with {name}: of the bandwidth of copies", "at least 0.70")
      for name in ("Q4_0", "Q8_0", "Q4_K", "Q6_K", "NF4")),
    ("decode of the model: of the bandwidth floor", "at least 0.60"),
    ("prompt of the model: of torch's bf16 products", "at least 0.40"),
    ("logits beside the CPU backend", "at most 0.05"),
    ("the same greedy text with 0, 1, half and all layers", "yes"),
    ("time per token falls with layers on the GPU", "yes"),
    ("the checks under compute-sanitizer", "yes"),
]  # fmt: skip


def board(*parts: str) -> Board:
    return Board("cuda", "CUDA", targets=cuda_goals.chosen(parts or cuda_parts.PARTS, cuda_goals.TYPES))


def measured(found: Board) -> dict[str, str]:
    return {goal.what: goal.measured for goal in found.goals}


def test_every_goal_is_there_before_anything_is_measured() -> None:
    found = board()
    assert [(goal.what, goal.wanted) for goal in found.goals] == MUST_SHOW
    assert not any(goal.met for goal in found.goals)
    assert {target.part for target in cuda_goals.TARGETS} <= cuda_parts.PARTS.keys()


def test_goals_of_what_was_not_asked_for_are_left_out() -> None:
    chosen = cuda_goals.chosen(["kernels", "copies"], ["Q4_K", "IQ3_S"])
    assert [target.what for target in chosen] == [cuda_goals.of_copies("Q4_K")]


@pytest.mark.parametrize(("value", "met"), [(0.70, True), (0.699, False), (float("nan"), False)])
def test_a_number_is_held_against_its_limit(value: float, met: bool) -> None:
    found = board("kernels")
    found.number(cuda_goals.of_copies("Q4_0"), value)
    assert [goal.met for goal in found.goals] == [met, False, False, False, False]


def breaks(found: Board, _: argparse.Namespace) -> None:
    found.number(cuda_goals.LOGITS, 0.001)
    raise RuntimeError("an illegal address")


def dies(_: Board, __: argparse.Namespace) -> None:
    os._exit(3)


def test_a_part_that_breaks_keeps_what_it_measured() -> None:
    found = cuda_parts.run("offload", breaks, board("offload", "model"), NO_ARGUMENTS)
    told = measured(found)
    assert told[cuda_goals.LOGITS] == "0.001"
    assert told[cuda_goals.TEXT] == "not measured: RuntimeError: an illegal address"
    assert told[cuda_goals.DECODE] == "not measured: its part has not run"
    assert found.failed == ["offload"] and "in breaks" in found.data["errors"]["offload"]


@pytest.mark.parametrize(("part", "why"), [(breaks, "an illegal address"), (dies, "BrokenProcessPool")])
def test_a_part_takes_no_other_along(part: cuda_parts.Part, why: str) -> None:
    found = cuda_parts.run_apart("offload", part, board("offload"), NO_ARGUMENTS)
    assert why in measured(found)[cuda_goals.TEXT] and found.failed == ["offload"]


def test_results_are_written_after_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the exit code says that one failed, if the others met their goals."""
    stored: list[dict[str, Any]] = []

    def last(found: Board, args: argparse.Namespace) -> None:
        stored.append(json.loads((args.out / "cuda.json").read_text()))

    args = argparse.Namespace(only=["offload", "copies"], types=["Q4_0"], out=tmp_path)
    monkeypatch.setattr(cuda, "arguments", lambda argv: args)
    monkeypatch.setattr(cuda.package, "describe", lambda: {"devices": [{"name": "none"}]})
    monkeypatch.setattr(cuda, "PARTS", {"offload": breaks, "copies": last})
    monkeypatch.setattr(cuda, "run_apart", cuda_parts.run)
    assert cuda.main() == 1
    assert "an illegal address" in stored[0]["results"]["errors"]["offload"]
    assert "**The part `offload` failed**: RuntimeError: an illegal address" in (tmp_path / "cuda.md").read_text()


def test_torch_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cuda_torch.missing() == "torch is missing: pip install torch"


def test_torch_is_timed_by_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what stands for it: 20 products at least, of matrices that take turns, between two events of 4 ms."""
    products: list[int] = []
    nothing = argparse.Namespace(wait_stream=lambda _: None)
    torch = argparse.Namespace(
        bfloat16="bf16",
        randn=lambda rows, cols, **_: argparse.Namespace(T=(rows, cols)),
        empty=lambda *shape, **_: shape,
        matmul=lambda x, w, out: products.append(out),
        cuda=argparse.Namespace(
            Stream=lambda: nothing,
            current_stream=lambda: nothing,
            stream=lambda _: contextlib.nullcontext(),
            graph=lambda _: contextlib.nullcontext(),
            CUDAGraph=lambda: argparse.Namespace(replay=lambda: None),
            Event=lambda enable_timing: argparse.Namespace(
                record=lambda: None, synchronize=lambda: None, elapsed_time=lambda _: 4.0
            ),
        ),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    cuda_torch.seconds.cache_clear()
    found = cuda_torch.seconds(4096, 14336, 512)
    cuda_torch.seconds.cache_clear()
    assert products == [(512, 4096)] * 40, "20 on another stream, 20 that are recorded"
    assert found == pytest.approx(4e-3 / 20)


class Clock:
    """What cuda_device asks of a GPU: 3 ms for whatever is launched between two events."""

    def __init__(self) -> None:
        self.launched: list[int] = []
        self.waited: list[int] = []
        self.is_waiting = True

    def launch(self, number: int, _: object) -> None:
        self.launched.append(number)

    def stream(self) -> Any:
        return argparse.Namespace(synchronize=lambda: None)

    def event(self) -> Any:
        return argparse.Namespace(record=lambda _: None, synchronize=lambda: None, query=lambda: not self.is_waiting)

    def event_elapsed_time(self, *_: object) -> float:
        return 3.0

    def defer_cleanup(self) -> Any:
        return open(os.devnull)

    def jit(self, _: object) -> Any:
        class Kernel:
            def __getitem__(kernel, _: object) -> Any:
                return self.waited.append

        return Kernel()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(cuda_device, "cuda", made)
    monkeypatch.setattr(cuda_device.package, "SIMULATED", False)
    return made


def use_recording(monkeypatch: pytest.MonkeyPatch, recording: Any) -> None:
    from halfbyte.runtime.backends.cuda import recorded

    monkeypatch.setattr(recorded, "recording", recording)


def test_a_recording_of_many_launches_is_timed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    made = Mock(side_effect=lambda: sent.append(len(clock.launched)))

    def recording(stream: object, launches: Any) -> Any:
        clock.launched.clear()
        launches()
        return made

    use_recording(monkeypatch, recording)
    timed = cuda_device.measure(clock.launch, 4)
    assert clock.launched == [0, 1, 2, 3], "what takes turns does so; 2 ms are enough for a recording"
    assert timed == cuda_device.Timed(3e-3 / 4, "recorded")
    assert sent == [4] * (1 + cuda_device.REPEATS) and made.close.called


def test_launches_that_cannot_be_recorded_are_held_back(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def recording(*_: object) -> Any:
        raise RuntimeError("no graphs here")

    use_recording(monkeypatch, recording)
    timed = cuda_device.measure(clock.launch, 2)
    assert timed.seconds == 3e-3 / 2 and "not recorded: RuntimeError: no graphs here" in timed.how
    assert len(clock.waited) == cuda_device.REPEATS
    clock.is_waiting = False
    with pytest.raises(RuntimeError, match="no kernel holds launches back"):
        cuda_device.measure(clock.launch, 2)


def test_a_type_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Matrices:
        n_bytes = 100

        def __init__(self, name: str, n: int, cols: int) -> None:
            if name == "Q8_0":
                raise RuntimeError("no such kernel")

        def product(self, m: int, how: str) -> cuda_device.Timed:
            return cuda_device.Timed(1.0, "recorded")

    monkeypatch.setattr(cuda_kernels, "Matrices", Matrices)
    found = board("kernels")
    found.data["copies"] = {"bytes_per_second": 125.0}
    cuda_kernels.kernels(found, argparse.Namespace(types=["Q4_0", "Q8_0", "NF4"], matrix="4x32"))
    told = measured(found)
    assert [told[cuda_goals.of_copies(name)] for name in ("Q4_0", "Q8_0", "NF4")] == [
        "0.80", "not measured: RuntimeError: no such kernel", "0.80",
    ]  # fmt: skip


@pytest.mark.parametrize(("mistakes", "met"), [(0, True), (2, False)])
def test_checks_run_under_the_sanitizer(
    mistakes: int, met: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "win32":
        pytest.skip("a shell script stands for the tool")
    tool = tmp_path / cuda_checks.TOOL
    summary = f"========= ERROR SUMMARY: {mistakes} errors"
    tool.write_text(f"#!/bin/sh\necho '= 3 passed, 1 skipped in 1.0s ='\necho '{summary}'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = board("checks")
    cuda_checks.checks(found, NO_ARGUMENTS)
    assert found.goals[0].met is met
    assert "| 3 passed, 1 skipped in 1.0s |" in found.write(tmp_path)
    assert found.goals[0].measured == f"{mistakes * len(cuda_checks.CHECKS)} errors, checks passed"


def test_a_sanitizer_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_checks, "found", lambda: None)
    monkeypatch.setattr(cuda_checks, "_run", lambda command: (0, "3 passed"))
    found = board("checks")
    cuda_checks.checks(found, NO_ARGUMENTS)
    assert found.goals[0].measured == "not measured: compute-sanitizer is missing: it comes with NVIDIA's CUDA toolkit"
    assert {"check_models", "check_ops", "check_weights"} <= set(cuda_checks.CHECKS)
    assert "check_benchmark" not in cuda_checks.CHECKS
