"""The one place that imports Numba's CUDA target, from the package `numba-cuda`.

Why it does not serve, where it does not, is kept and told when CUDA is asked for. Importing this module never fails and
touches no driver.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Any

from ....formats.errors import UnsupportedError
from ... import settings

PACKAGE, MODULE = "numba-cuda", "numba.cuda"
SUCCESSOR = "numba-cuda-mlir"  # makes intrinsics another way than instructions.py does
INSTALL = "Run pip install 'halfbyte[cuda]' on a machine with an NVIDIA driver, or leave all layers on the CPU"
EXTRAS = "pip install 'halfbyte[cuda]' brings one for drivers of CUDA 13, 'halfbyte[cuda12]' one for those of CUDA 12"


@dataclass(frozen=True)
class Found:
    """The module that serves, or None, and then why."""

    cuda: Any
    version: str
    reason: str = ""


class CUDAError(UnsupportedError):
    """CUDA was asked for, and cannot be used here."""


def _version(package: str) -> str:
    """"" where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _find() -> Found:
    version = _version(PACKAGE)
    if not version:
        successor = _version(SUCCESSOR)
        beside = f"; {SUCCESSOR} {successor} is, which this version does not use" if successor else ""
        return Found(None, "", f"{PACKAGE} is not installed{beside}")
    try:
        module = importlib.import_module(MODULE)
    except Exception as error:  # whatever a package that does not fit raises: it must not take the CPU path along
        return Found(None, version, f"{PACKAGE} {version} cannot be imported: {type(error).__name__}: {error}")
    _silence()
    return Found(module, version)


def _silence() -> None:
    """A token's launches have few blocks, and the package would warn of each."""
    try:
        config: Any = importlib.import_module(f"{MODULE}.core.config")
    except ImportError:
        return  # a package that keeps its settings elsewhere
    if hasattr(config, "CUDA_LOW_OCCUPANCY_WARNINGS"):
        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


FOUND = _find()
cuda: Any = FOUND.cuda
# Kernels are plain Python functions then, a thread for each of theirs.
SIMULATED = settings.cuda_simulated()


def require(device: int = 0) -> Any:
    """The module, with a GPU of this number that it can use; CUDAError otherwise."""
    if cuda is None:
        raise CUDAError(f"there are no CUDA kernels: {FOUND.reason}. {INSTALL}")
    if problem := _problem():
        raise CUDAError(f"{PACKAGE} {FOUND.version} has no GPU to use: {problem.rstrip('.')}. {INSTALL}")
    if device >= (found := len(cuda.gpus)):
        known = "cuda:0 alone" if found == 1 else f"cuda:0 to cuda:{found - 1}"
        raise CUDAError(f"cuda:{device} was asked for, and there is {known}. Name GPUs that are there")
    if problem := "" if SIMULATED else _compiler_problem():
        raise CUDAError(f"kernels for the GPU cannot be compiled: {problem}; {EXTRAS}")
    return cuda


def count() -> int:
    """How many GPUs there are to use."""
    return 0 if cuda is None or _problem() else len(cuda.gpus)


def _problem() -> str:
    """Why there is no GPU to use; "" if there is one."""
    try:
        if not SIMULATED and not cuda.is_available():
            return " ".join(str(cuda.cuda_error() or "no device answers").replace("\\n", " ").split())
        return "" if len(cuda.gpus) else "no device answers"
    except Exception as error:  # drivers fail in many ways, and none of them may end the process
        return f"{type(error).__name__}: {error}"


def _compiler_problem() -> str:
    """Why there is no compiler whose kernels the driver takes; "" if there is one."""
    try:
        compiler = _version_of("runtime")
    except Exception as error:  # its libraries are found, or not, by another package
        return f"{type(error).__name__}: {error}".rstrip(". ")
    known = _version_of("driver")
    if compiler[0] <= known[0]:
        return ""  # an older driver of the same number takes them, too
    return f"the driver knows CUDA {_dotted(known)}, and the compiler makes kernels for CUDA {compiler[0]}"


def _version_of(what: str) -> tuple[int, int]:
    """The newest CUDA that the driver knows, or that of the compiler ("runtime")."""
    module: Any = importlib.import_module(f"{cuda.__name__}.cudadrv.{what}")
    major, minor = getattr(module, what).get_version()
    return major, minor


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def describe() -> dict[str, Any]:
    """What `halfbyte doctor` shows: the package that serves, and the GPUs; or why there are none."""
    found: dict[str, Any] = {"package": f"{PACKAGE} {FOUND.version}" if cuda is not None else None}
    if reason := FOUND.reason if cuda is None else _problem():
        return {**found, "not used": reason}
    devices = [_device(number) for number in range(len(cuda.gpus))]
    return {**found, "driver": _driver(), "compiler": _compiler(), "devices": devices}


def _compiler() -> str:
    """CUDA of the compiler, or why it does not serve."""
    return "simulator" if SIMULATED else _compiler_problem() or f"CUDA {_dotted(_version_of('runtime'))}"


def _driver() -> str:
    """The driver's own version, where a package tells it, and the newest CUDA that it knows."""
    if SIMULATED:
        return "simulator"
    return f"{_own_version()} for CUDA {_dotted(_version_of('driver'))}".strip()


def _own_version() -> str:
    """For example 580.65.06. "" where cuda-core is too old to tell, or the system hides it, as in some containers."""
    try:
        major, *rest = importlib.import_module("cuda.core.system").get_kernel_mode_driver_version()
    except Exception:  # the library that tells it is the driver's, and fails in ways of its own
        return ""
    return ".".join([str(major), *(f"{part:02}" for part in rest)])


def _device(number: int) -> dict[str, Any]:
    gpu = cuda.gpus[number]
    with gpu:
        memory, name = cuda.current_context().get_memory_info(), getattr(gpu, "name", "simulator")
        return {
            "name": name.decode() if isinstance(name, bytes) else str(name),
            "compute capability": ".".join(map(str, gpu.compute_capability)),
            **{f"memory {what}": int(min(getattr(memory, what), 1 << 62)) for what in ("free", "total")},
        }
