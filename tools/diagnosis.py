"""What `halfbyte doctor` reports, as plain data. Nothing here may fail: a broken part is part of the report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import __version__
from ..runtime import hub, settings
from ..runtime.topology import memory, physical_cores, usable_cpus

PACKAGES = (
    "numpy",
    "numba",
    "llvmlite",
    "gguf",
    "tokenizers",
    "sentencepiece",
    "jinja2",
    "huggingface_hub",
    "click",
    "pip",
)


def diagnose() -> dict[str, Any]:
    """Everything a bug report needs, made of str, int, bool, None, list and dict only."""
    ram = memory()
    return {
        "halfbyte": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu": _guarded(_cpu),
        "threads": {"default": physical_cores(), "usable": usable_cpus()},
        "memory": {"total": ram.total, "available": ram.available},
        "gpu": _guarded(_gpu),
        "home": _guarded(lambda: _folder(settings.home())),
        "models": _guarded(_models),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _guarded(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _cpu() -> Any:
    from ..runtime.backends import cpu  # imports Numba, whose trouble is what people run this command for

    return cpu.describe()


def _gpu() -> Any:
    from ..runtime.backends.cuda import package  # asks the driver, which may be in any state

    return package.describe()


def _folder(path: Path) -> dict[str, Any]:
    """Where it is, whether it can be written, and what it holds. It is not created."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    sizes = {child.name: _size(child) for child in sorted(path.iterdir())} if path.is_dir() else {}
    return {
        "path": str(path),
        "exists": path.is_dir(),
        "writable": _is_writable(existing),
        "bytes": sum(sizes.values()),
        "contents": sizes,
    }


def _is_writable(folder: Path) -> bool:
    """Tried, not asked: permission bits say nothing about read-only mounts, quotas and Windows."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(os.lstat(os.path.join(root, name)).st_size for root, _, names in os.walk(path) for name in names)


def _models() -> list[dict[str, Any]]:
    found = [(entry.name, hub.cached_path(entry)) for entry in hub.ENTRIES]
    return [{"name": name, "path": str(path), "bytes": path.stat().st_size} for name, path in found if path]
