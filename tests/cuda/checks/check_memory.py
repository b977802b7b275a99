"""Device memory: what is counted, what a step sends, what is given back, and what happens where there is no more."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.runtime.backends.base import DeviceFull
from halfbyte.runtime.backends.cuda import allocate, memory
from halfbyte.runtime.backends.cuda import executor as running
from halfbyte.runtime.backends.cuda.allocate import DeviceMemory, rounded
from halfbyte.runtime.backends.cuda.backend import CUDABackend
from halfbyte.runtime.backends.cuda.executor import CUDAExecutor
from halfbyte.runtime.backends.cuda.memory import MOST_KINDS, Inputs, tiles_of
from halfbyte.runtime.backends.cuda.package import cuda
from halfbyte.runtime.backends.cuda.warm_up import LENGTH, warm_up_steps
from halfbyte.runtime.backends.offload import offloading
from halfbyte.runtime.backends.placement import ALL, AUTO, Placement
from halfbyte.runtime.graph.ir import Graph
from halfbyte.runtime.step import Step

from ...builders import CASES, Case, open_case
from ...models.running import run_in_chunks


def tiny(tmp_path: Path, layers: int = 1) -> Graph:
    case = CASES["llama"]
    return open_case(Case("tiny", {**case.config, "vocab_size": 41, "num_hidden_layers": layers}), tmp_path).graph


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """Every device array from here on."""
    arrays: list[weakref.ref[Any]] = []
    empty = DeviceMemory.empty

    def noted(self: DeviceMemory, count: int, dtype: Any) -> Any:
        array = empty(self, count, dtype)
        if array is not None:
            arrays.append(weakref.ref(array))
        return array

    monkeypatch.setattr(DeviceMemory, "empty", noted)
    return arrays


@pytest.fixture
def uncollected() -> Iterator[None]:
    """What holds itself stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_large_arrays_are_counted_as_drivers_take_them() -> None:
    assert [rounded(size) for size in (1, 512, 513)] == [512, 512, 1024]
    assert rounded((1 << 20) - 1) == 1 << 20 and rounded(1 << 20) == 2 << 20 and rounded((2 << 20) + 1) == 4 << 20
    for dry in (True, False):
        counted = DeviceMemory(dry=dry)
        counted.empty(1, np.float32)
        counted.empty((1 << 20) + 1, np.uint8)
        assert counted.n_bytes == 512 + (2 << 20)


def test_closing_gives_memory_back_at_once(
    taken: list[weakref.ref[Any]], uncollected: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []

    def alive() -> int:
        return sum(ref() is not None for ref in taken)

    monkeypatch.setattr(running, "return_memory", lambda: flushed.append(alive()))
    executor = offloading(Placement(ALL)).compile(tiny(tmp_path), n_pages=2, max_tokens=2, threads=1)
    pools = executor.kv
    assert alive() >= 20
    executor.close()
    assert alive() == 0 and flushed == [0] and pools.n_bytes == 0
    executor.close()


def test_memory_that_ends_leaves_fewer_layers_on_the_gpu(
    taken: list[weakref.ref[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver refuses the array after those of two layers, though it said that it has room."""
    graph, array, most = tiny(tmp_path, layers=3), allocate.cuda.device_array, 35

    def limited(*args: Any, **options: Any) -> Any:
        if sum(ref() is not None for ref in taken) >= most:
            raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")
        return array(*args, **options)

    monkeypatch.setattr(allocate.cuda, "device_array", limited)
    executor = offloading(Placement(AUTO)).compile(graph, n_pages=2, max_tokens=2, threads=1)
    parts = [len(part.state) for part, executor in executor._parts if isinstance(executor, CUDAExecutor)]
    assert parts == [2]
    executor.close()
    with pytest.raises(DeviceFull, match=r"3 layers do not fit .*, 2 would"):
        offloading(Placement(ALL)).compile(graph, n_pages=2, max_tokens=2, threads=1)
    most = 0
    executor = offloading(Placement(AUTO)).compile(graph, n_pages=2, max_tokens=2, threads=1)
    assert not any(isinstance(executor, CUDAExecutor) for _, executor in executor._parts)
    executor.close()


def test_a_device_without_room_for_a_context_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(allocate.cuda, "current_context", refuse)
    assert allocate.free_bytes() == 0


def test_what_is_pending_is_given_back_before_free_memory_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    pending = [1]

    class Context:
        memory_manager = type("", (), {"deallocations": pending})

        def get_memory_info(self) -> Any:
            return type("", (), {"free": 7 if not pending else 0})

    monkeypatch.setattr(allocate.cuda, "current_context", Context)
    assert allocate.free_bytes() == 7


def test_a_step_goes_over_as_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same addresses, whatever there was before."""
    inputs = Inputs(DeviceMemory(), 6, 5)
    kinds = [(2, True), (1, False)]
    arrays = [inputs.tiles_of(*kind) for kind in kinds]
    copies: list[int] = []
    array_type = type(inputs.tokens)
    copy = array_type.copy_to_device

    def noted(self: Any, other: Any, **options: Any) -> None:
        copies.append(other.size)
        copy(self, other, **options)

    monkeypatch.setattr(array_type, "copy_to_device", noted)
    sequence = np.array([0, 0, 0, 1], np.int32)
    for add in (7, 3):
        pages = np.array([[add, -1], [add + 1, add + 2]], np.int32)
        step = Step(sequence + add, np.array([4, 5, 6, 0], np.int32), sequence, pages, np.array([2, 3], np.int32))
        counts = dict(inputs.write(step, cuda.default_stream() if hasattr(cuda, "default_stream") else 0))
        for name in ("tokens", "positions", "sequence", "outputs"):
            expected = getattr(step, name)
            assert np.array_equal(getattr(inputs, name).copy_to_host()[: len(expected)], expected)
        table = inputs.pages.copy_to_host()[:10].reshape(2, 5)
        assert np.array_equal(table[:, :2], pages) and (table[:, 2:] == -1).all()
        for kind, array in zip(kinds, arrays, strict=True):
            tiles = tiles_of(step, *kind)
            assert counts[kind] == len(tiles)
            assert np.array_equal(array.copy_to_host()[: tiles.size], tiles.reshape(-1))
        assert not inputs.first.copy_to_host().any()
    assert len(copies) == 2 and copies[0] == 2 * 3 * 6 + 4 * 6 + 2 * 5


def test_kinds_of_attention_have_an_end() -> None:
    inputs = Inputs(DeviceMemory(dry=True), 4, 1)
    for tokens in range(MOST_KINDS):
        inputs.tiles_of(tokens, True)
        inputs.tiles_of(tokens, True)
    with pytest.raises(memory.UnsupportedError, match="kinds of attention"):
        inputs.tiles_of(99, True)


def test_warming_up_launches_every_program(tmp_path: Path) -> None:
    """And changes nothing that a text is made of."""
    graph, tokens = tiny(tmp_path), CASES["llama"].tokens()[:2]
    executor = CUDABackend().compile(graph, n_pages=2, max_tokens=2)
    expected = run_in_chunks(executor, tokens, [2])
    told: list[tuple[str, int, int]] = []
    executor.warm_up(lambda *progress: told.append(progress))
    plan = executor._plan
    total = len(plan.decode) + 2 * len(plan.prompt)
    assert told == [("compile", i + 1, total) for i in range(total)]
    assert np.array_equal(run_in_chunks(executor, tokens, [2]), expected)


def test_steps_of_the_warm_up_are_such_as_every_model_takes() -> None:
    steps = warm_up_steps(40)
    assert [(step.n_tokens, step.is_prompt) for step in steps] == [
        (1, False), (1, True), (2, True), (4, True), (8, True), (16, True), (40, True)
    ]  # fmt: skip
    last = steps[-1]
    assert last.positions.max() == LENGTH - 1 and last.pages.shape == (5, 1) and not last.pages.any()
    assert np.array_equal(last.outputs, [39]) and last.sequence[-1] == 4
    assert [step.n_tokens for step in warm_up_steps(3)] == [1, 1, 2, 3]
