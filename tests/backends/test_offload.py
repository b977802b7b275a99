"""Layers on GPUs that are made up here: what is asked for beforehand, and what happens where memory ends."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from halfbyte.runtime.backends.cpu import CPUBackend
from halfbyte.runtime.backends.cuda import package
from halfbyte.runtime.backends.offload import offloading
from halfbyte.runtime.backends.placement import ALL, AUTO, Placement


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    """There are so many GPUs."""
    monkeypatch.setattr(package, "SIMULATED", False)
    there = SimpleNamespace(gpus=range(gpus), is_available=lambda: gpus > 0, cuda_error=lambda: "no driver")
    monkeypatch.setattr(package, "cuda", there)


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
