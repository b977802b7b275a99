"""The package that serves CUDA, in processes of their own: whether Numba simulates is settled when it is imported."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from halfbyte.runtime.backends.cuda import package
from halfbyte.runtime.settings import child_environment

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed: pip install numba-cuda"
)


@needs_package
def test_small_grids_are_launched_without_a_warning() -> None:
    """Neither a GPU nor its driver is needed to say how a kernel is to be launched."""
    code = "from halfbyte.runtime.backends.cuda.kernels import norm; norm.rms_norm[1, 256]"
    command = [sys.executable, "-W", "error", "-c", code]
    environment = child_environment(NUMBA_ENABLE_CUDASIM="0")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def fails() -> tuple[int, ...]:
    raise RuntimeError("there is no library")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Modules of a package that is made up: a GPU, a driver of CUDA 13.1, a compiler of CUDA 13.5."""
    modules: dict[str, Any] = {
        "made_up.cudadrv.driver": SimpleNamespace(driver=SimpleNamespace(get_version=lambda: (13, 1))),
        "made_up.cudadrv.runtime": SimpleNamespace(runtime=SimpleNamespace(get_version=lambda: (13, 5))),
        "cuda.core.system": SimpleNamespace(get_kernel_mode_driver_version=lambda: (580, 65, 6)),
    }
    made_up = SimpleNamespace(__name__="made_up", gpus=[0], is_available=lambda: True)
    monkeypatch.setattr(package, "SIMULATED", False)
    monkeypatch.setattr(package, "cuda", made_up)
    monkeypatch.setattr(package, "_device", lambda number: {"name": "GPU"})
    monkeypatch.setattr(importlib, "import_module", modules.__getitem__)
    return modules


def test_doctor_tells_the_versions_of_driver_and_compiler(machine: dict[str, Any]) -> None:
    told = package.describe()
    assert told["driver"] == "580.65.06 for CUDA 13.1" and told["compiler"] == "CUDA 13.5"
    machine["cuda.core.system"].get_kernel_mode_driver_version = fails
    assert package.describe()["driver"] == "for CUDA 13.1"


def test_a_compiler_that_the_driver_does_not_know_is_told_beforehand(machine: dict[str, Any]) -> None:
    assert package.require() is package.cuda
    machine["made_up.cudadrv.driver"].driver.get_version = lambda: (12, 8)
    with pytest.raises(package.CUDAError, match=r"driver knows CUDA 12.8, .* for CUDA 13; .*halfbyte\[cuda12\]"):
        package.require()
    assert "knows CUDA 12.8" in package.describe()["compiler"]


def test_a_compiler_that_is_not_there_is_told_beforehand(machine: dict[str, Any]) -> None:
    machine["made_up.cudadrv.runtime"].runtime.get_version = fails
    with pytest.raises(package.CUDAError, match="cannot be compiled: RuntimeError: there is no library; pip install"):
        package.require()
