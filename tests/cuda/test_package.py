"""The package that serves CUDA, in processes of their own: whether Numba simulates is settled when it is imported."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
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
    raise RuntimeError("there is no NVML")


@pytest.mark.parametrize(("own", "said"), [(lambda: (580, 65, 6), "580.65.06 for CUDA 13.1"), (fails, "for CUDA 13.1")])
def test_doctor_tells_the_version_of_the_driver(
    own: Callable[[], tuple[int, ...]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: dict[str, Any] = {
        "made_up.cudadrv.driver": SimpleNamespace(driver=SimpleNamespace(get_version=lambda: (13, 1))),
        "cuda.core.system": SimpleNamespace(get_kernel_mode_driver_version=own),
    }
    made_up = SimpleNamespace(__name__="made_up", gpus=[0], is_available=lambda: True)
    monkeypatch.setattr(package, "SIMULATED", False)
    monkeypatch.setattr(package, "cuda", made_up)
    monkeypatch.setattr(package, "_device", lambda number: {"name": "GPU"})
    monkeypatch.setattr(importlib, "import_module", modules.__getitem__)
    assert package.describe()["driver"] == said
