"""Layers on GPUs that are made up here: what is asked for beforehand, and what happens where memory ends."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.errors import HalfbyteError, UnsupportedError
from halfbyte.runtime.backends.base import DeviceFull
from halfbyte.runtime.backends.cpu import CPUBackend
from halfbyte.runtime.backends.cuda import package
from halfbyte.runtime.backends.mixed import MixedBackend, MixedExecutor
from halfbyte.runtime.backends.offload import Offload, offloading
from halfbyte.runtime.backends.placement import ALL, AUTO, Placement, layers_of
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.graph.ir import Graph

from ..builders import CASES, open_case


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    """There are so many GPUs."""
    monkeypatch.setattr(package, "SIMULATED", False)
    there = SimpleNamespace(gpus=range(gpus), is_available=lambda: gpus > 0, cuda_error=lambda: "no driver")
    monkeypatch.setattr(package, "cuda", there)
    monkeypatch.setattr(package, "_compiler_problem", lambda: "")


MISSING = [
    Placement(ALL, (1, 1)),
    Placement(AUTO, (1, 1)),
    Placement(2, (0, 1)),
    Placement(0, (), (("ffn", "cuda:1"),)),
    Placement(AUTO, (), (("ffn", "cuda:1"),)),
]


@pytest.mark.parametrize("placement", MISSING)
def test_gpus_that_are_named_must_be_there(placement: Placement, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus=1)
    with pytest.raises(package.CUDAError, match="cuda:1 was asked for, and there is cuda:0 alone") as raised:
        offloading(placement)
    assert raised.value.exit_code == 5
    pretend(monkeypatch, gpus=0)
    with pytest.raises(package.CUDAError, match="has no GPU to use: no driver"):
        offloading(placement)


@pytest.mark.parametrize("placement", [Placement(AUTO), Placement(AUTO, (), (("exps", "cpu"),)), Placement(0)])
def test_without_a_gpu_what_names_none_runs_on_the_cpu(placement: Placement, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus=0)
    assert isinstance(offloading(placement), CPUBackend)


def test_a_gpu_is_named_by_its_number_among_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus=4)
    with pytest.raises(package.CUDAError, match="there is cuda:0 to cuda:3"):
        package.require(4)
    assert Placement(ALL, (1, 0, 2)).gpus == {0, 2} and Placement(3).gpus == {0} and not Placement(AUTO).gpus


class Held:
    """Memory of a device."""

    itself: Held


class Refusing(ReferenceBackend):
    """A GPU that takes so many layers and pages, though it said that it has room for all."""

    def __init__(self, error: HalfbyteError, layers: int, pages: int) -> None:
        super().__init__(np.float16)
        self.error, self.layers, self.pages = error, layers, pages
        self.tried: list[tuple[int, int]] = []
        self.taken: list[weakref.ref[Any]] = []

    def compile(self, graph: Graph, **options: Any) -> Any:
        assert all(ref() is None for ref in self.taken), "what was taken before has been given back"
        layers, pages = len(graph.state), options["n_pages"]
        self.tried.append((layers, pages))
        held = Held()
        held.itself = held  # as calls and what they were made of
        self.taken.append(weakref.ref(held))
        if layers > self.layers or pages > self.pages:
            raise self.error
        return super().compile(graph, **options)


def load(tmp_path: Path, placement: Placement, gpu: Refusing, free: int = 1 << 40, pages: int = 9) -> MixedExecutor:
    chosen = Offload(placement, lambda number: free, lambda part, pages, tokens: len(part.state) << 30, least_pages=3)
    backend_of: Callable[[str], Any] = {"cpu": ReferenceBackend(np.float16), "cuda:0": gpu}.__getitem__
    backend = MixedBackend(chosen.places, backend_of, chosen.instead)
    return backend.compile(open_case(CASES["llama"], tmp_path).graph, n_pages=pages, max_tokens=4, threads=1)


def test_a_gpu_that_refuses_gets_fewer_pages_and_then_fewer_layers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = Refusing(DeviceFull("no room"), layers=1, pages=3)
    with caplog.at_level(logging.WARNING):
        executor = load(tmp_path, Placement(AUTO), gpu)
    assert gpu.tried == [(3, 9), (3, 3), (2, 3), (1, 3)] and executor.kv.n_pages == 3
    assert [record.message for record in caplog.records] == [
        "no room; there are fewer pages of keys and values instead",
        "no room; 2 layers are tried instead of 3", "no room; 1 layers are tried instead of 2",
    ]  # fmt: skip


def test_layers_that_are_tried_instead_are_those_that_fit(tmp_path: Path) -> None:
    """Memory is asked again: others may have taken much of it."""
    gpu = Refusing(DeviceFull("no room"), layers=1, pages=9)
    free = iter([1 << 40] + [2 << 30] * 9)
    chosen = Offload(Placement(AUTO), lambda number: next(free), lambda part, pages, tokens: len(part.state) << 30)
    backend = MixedBackend(
        chosen.places, {"cpu": ReferenceBackend(np.float16), "cuda:0": gpu}.__getitem__, chosen.instead
    )
    backend.compile(open_case(CASES["llama"], tmp_path).graph, n_pages=9, max_tokens=4, threads=1)
    assert gpu.tried == [(3, 9), (1, 9)]


def test_a_number_of_layers_that_a_gpu_refuses_says_how_many_fit(tmp_path: Path) -> None:
    gpu = Refusing(DeviceFull("no room"), layers=0, pages=9)
    with pytest.raises(DeviceFull, match=r"2 layers do not fit .*, 1 would; load with gpu_layers=1") as raised:
        load(tmp_path, Placement(2), gpu)
    assert gpu.tried == [(2, 9), (2, 3)] and str(raised.value.__cause__) == "no room" and raised.value.exit_code == 4
    with pytest.raises(DeviceFull, match="weights that place puts on a GPU do not fit"):
        load(tmp_path, Placement(0, (), (("blk.0", "cuda"),)), gpu, free=0)


def test_a_gpu_without_room_at_all_leaves_auto_to_the_cpu(tmp_path: Path) -> None:
    gpu = Refusing(DeviceFull("no room"), layers=-1, pages=9)
    load(tmp_path, Placement(AUTO), gpu)
    assert [layers for layers, _ in gpu.tried] == [3, 3, 2, 1]


def test_what_a_gpu_cannot_do_is_done_by_the_cpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With auto, and with the reason."""
    gpu = Refusing(UnsupportedError("no such kernel"), layers=-1, pages=9)
    with caplog.at_level(logging.WARNING):
        load(tmp_path, Placement(AUTO), gpu)
    assert gpu.tried == [(3, 9)] and caplog.messages == ["all layers stay on the CPU: no such kernel"]
    with pytest.raises(UnsupportedError, match="no such kernel"):
        load(tmp_path, Placement(ALL), gpu)


def test_what_cannot_be_counted_stays_on_the_cpu(tmp_path: Path) -> None:
    def needed(part: Graph, pages: int, tokens: int) -> int:
        raise UnsupportedError("no such kernel")

    graph = open_case(CASES["llama"], tmp_path).graph
    places, pages = Offload(Placement(AUTO), lambda number: 1 << 40, needed).places(graph, 9, 4)
    assert set(places) == {"cpu"} and len(places) == len(layers_of(graph)) and pages == 9
    with pytest.raises(UnsupportedError):
        Offload(Placement(ALL), lambda number: 1 << 40, needed).places(graph, 9, 4)
