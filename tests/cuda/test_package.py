"""The package that serves CUDA, in processes of their own: whether Numba simulates is settled when it is imported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from halfbyte.runtime.settings import child_environment

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed: pip install numba-cuda"
)


def test_small_grids_are_launched_without_a_warning() -> None:
    """Neither a GPU nor its driver is needed to say how a kernel is to be launched."""
    code = "from halfbyte.runtime.backends.cuda.kernels import norm; norm.rms_norm[1, 256]"
    command = [sys.executable, "-W", "error", "-c", code]
    environment = child_environment(NUMBA_ENABLE_CUDASIM="0")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
