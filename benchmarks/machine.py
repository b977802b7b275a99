"""Facts about the machine that belong beside every number. No names of hosts, users or folders."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

BUSY = 0.3  # load average per core above which timings mean little
PACKAGES = ("halfbyte", "numpy", "numba", "llvmlite", "llama-cpp-python")


def facts() -> dict[str, Any]:
    """Processor, memory, system and versions."""
    from halfbyte.runtime.backends.cpu import describe
    from halfbyte.runtime.topology import memory, physical_cores, usable_cpus

    return {
        "cpu": cpu_name(),
        "cores": physical_cores(),
        "logical_cpus": usable_cpus(),
        "kernel_level": describe()["level"],
        "memory_gib": round(memory().total / (1 << 30), 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": commit(),
    }


def cpu_name() -> str:
    """What the processor calls itself."""
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit that is checked out, with a + when files differ from it; None outside a repository."""
    folder = str(Path(__file__).parent)
    found = _output("git", "-C", folder, "rev-parse", "--short", "HEAD")
    changed = _output("git", "-C", folder, "status", "--porcelain", "--untracked-files=no")
    return found + ("+" if changed else "") if found else None


def load_average() -> float | None:
    """Of the last minute; None where the system has none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def is_busy() -> bool:
    """Other programs use the processor, as far as the system tells."""
    from halfbyte.runtime.topology import usable_cpus

    average = load_average()
    return average is not None and average > BUSY * usable_cpus()


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
