"""The one place that imports Numba's CUDA target: from `numba-cuda`, or from its successor `numba-cuda-mlir`.

The first that is installed and fits the installed Numba serves; what was wrong with the others is kept, and told when
CUDA is asked for. Importing this module never fails and touches no driver.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Any

from ....formats.errors import UnsupportedError
from ... import settings

# Distribution, and the module in it.
PACKAGES = (("numba-cuda", "numba.cuda"), ("numba-cuda-mlir", "numba_cuda_mlir.cuda"))
SERVED = ("numba-cuda",)
INSTALL = "Run pip install 'halfbyte[cuda]' on a machine with an NVIDIA driver, or leave all layers on the CPU"


@dataclass(frozen=True)
class Found:
    """The module that serves, or None, and why each of the others does not."""

    cuda: Any
    package: str
    version: str
    reasons: tuple[str, ...]


class CUDAError(UnsupportedError):
    """CUDA was asked for, and cannot be used here."""


def _find() -> Found:
    reasons = []
    for distribution, module in PACKAGES:
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            reasons.append(f"{distribution} is not installed")
            continue
        if distribution not in SERVED:
            reasons.append(f"{distribution} {version} is installed, but makes intrinsics another way")
            continue
        try:
            return Found(importlib.import_module(module), distribution, version, tuple(reasons))
        except Exception as error:  # whatever a package that does not fit raises: it must not take the CPU path along
            reasons.append(f"{distribution} {version} cannot be imported: {type(error).__name__}: {error}")
    return Found(None, "", "", tuple(reasons))


FOUND = _find()
cuda: Any = FOUND.cuda
# Kernels are plain Python functions then, a thread for each of theirs.
SIMULATED = settings.cuda_simulated()


def require(device: int = 0) -> Any:
    """The module, with a GPU of this number that it can use; CUDAError otherwise."""
    if cuda is None:
        raise CUDAError(f"there are no CUDA kernels: {'; '.join(FOUND.reasons)}. {INSTALL}")
    problem = _problem(device)
    if problem:
        raise CUDAError(f"{FOUND.package} {FOUND.version} has no GPU to use: {problem.rstrip('.')}. {INSTALL}")
    return cuda


def count() -> int:
    """How many GPUs there are to use."""
    return 0 if cuda is None or _problem(0) else len(cuda.gpus)


def _problem(device: int) -> str:
    """Why there is no such GPU to use; "" if there is one."""
    try:
        if not SIMULATED and not cuda.is_available():
            return " ".join(str(cuda.cuda_error() or "no device answers").replace("\\n", " ").split())
        found = len(cuda.gpus)
        return "" if device < found else f"number {device} was asked for, and there are {found}"
    except Exception as error:  # drivers fail in many ways, and none of them may end the process
        return f"{type(error).__name__}: {error}"


def describe() -> dict[str, Any]:
    """What `halfbyte doctor` shows: the package that serves, and the GPUs; or why there are none."""
    found: dict[str, Any] = {"package": f"{FOUND.package} {FOUND.version}" if cuda is not None else None}
    reasons = [*FOUND.reasons] if cuda is None else [problem] if (problem := _problem(0)) else []
    if reasons:
        return {**found, "not used": "; ".join(reasons)}
    return {**found, "driver": _driver(), "devices": [_device(number) for number in range(len(cuda.gpus))]}


def _driver() -> str:
    """The newest CUDA that the driver knows."""
    if SIMULATED:
        return "simulator"
    version = importlib.import_module(f"{cuda.__name__}.cudadrv.driver").driver.get_version()
    return ".".join(map(str, version))


def _device(number: int) -> dict[str, Any]:
    gpu = cuda.gpus[number]
    with gpu:
        memory, name = cuda.current_context().get_memory_info(), getattr(gpu, "name", "simulator")
        return {
            "name": name.decode() if isinstance(name, bytes) else str(name),
            "compute capability": ".".join(map(str, gpu.compute_capability)),
            **{f"memory {what}": int(min(getattr(memory, what), 1 << 62)) for what in ("free", "total")},
        }
