"""The CUDA backend's checks: in Numba's simulator, and on a GPU where there is one; and what kernels compile to.

Which of these a process does is settled when Numba is imported, so each runs in a process of its own.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from halfbyte.runtime.settings import child_environment

ROOT = Path(__file__).parents[2]
CHECKS = sorted(path.name for path in (Path(__file__).parent / "checks").glob("check_*.py"))
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed: pip install numba-cuda"
)


# One of each kind; all of them: python -m tests.cuda.kernels_to_ptx 7.5 8.6 9.0
KINDS = r"(rows|tiles|gated|experts|embed|together|dequantize)\.(Q4_K\b|F16)|IQ3_S.1$|^[a-z_]+$|attention.8|glu.silu"


def run(check: str, **environment: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", f"tests/cuda/checks/{check}"]
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment(**environment), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


@needs_package
@pytest.mark.parametrize("check", CHECKS)
def test_in_the_simulator(check: str) -> None:
    run(check, NUMBA_ENABLE_CUDASIM="1")


@needs_package
@pytest.mark.parametrize("check", CHECKS)
def test_on_a_gpu(check: str) -> None:
    probe = "from halfbyte.runtime.backends.cuda import package; raise SystemExit(package.count() == 0)"
    environment = child_environment(NUMBA_ENABLE_CUDASIM="0")
    if subprocess.run([sys.executable, "-c", probe], env=environment, check=False).returncode:
        pytest.skip("there is no GPU here")
    run(check, NUMBA_ENABLE_CUDASIM="0")


def skip_without_compiler() -> None:
    """It is there where NVIDIA's libraries are installed: pip install 'numba-cuda[cu13]'."""
    pathfinder = pytest.importorskip("cuda.pathfinder")
    try:
        for library in ("nvvm", "nvrtc"):
            pathfinder.load_nvidia_dynamic_lib(library)
    except Exception as error:
        pytest.skip(f"there is no compiler for GPUs here: {str(error)[:99]}")


@needs_package
@pytest.mark.parametrize("capability", ["7.5", "8.6", "9.0"])
def test_kernels_compile(capability: str) -> None:
    skip_without_compiler()
    command = [sys.executable, "-m", "tests.cuda.kernels_to_ptx", capability, "--only", KINDS]
    environment = child_environment(NUMBA_ENABLE_CUDASIM="0")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    kernels = [line.split() for line in done.stdout.splitlines()]
    assert len(kernels) > 25
    assert {line[1] for line in kernels if "local" in line} == {"rope", "rotate_and_store"}


@needs_package
def test_products_take_few_instructions() -> None:
    """A warp's, for 1,024 weights: with more of them than this they would take longer than the bytes on an H100."""
    skip_without_compiler()
    if shutil.which("ptxas") is None:
        pytest.skip("NVIDIA's assembler is not on the PATH")
    most = {"Q4_0": 150, "Q4_K": 170}
    command = [sys.executable, "-m", "tests.cuda.count_instructions", *most]
    environment = child_environment(NUMBA_ENABLE_CUDASIM="0")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()}
    assert found.keys() == most.keys()
    assert all(found[name] <= limit for name, limit in most.items()), found
