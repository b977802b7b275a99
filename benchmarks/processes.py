"""Child processes that are timed from outside, and how much memory a process has used at most."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .common import give_up

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Finished:
    """A child that ended well: seconds from its start to its first line of output and to its end, and that line."""

    to_first_line: float
    to_end: float
    line: str

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.line)
        return found


def run(arguments: Sequence[str], **environment: str) -> Finished:
    """Run this Python with `arguments`, from the repository's folder, with changes to the environment."""
    child_environment: Mapping[str, str] = {**os.environ, **environment}
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=child_environment,
        cwd=ROOT,
    ) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        first = time.perf_counter()
        _, errors = child.communicate()
        end = time.perf_counter()
    if child.returncode:
        give_up(f"{' '.join(arguments)} failed:\n{errors.strip()[-2000:]}")
    return Finished(first - begin, end - begin, line)


def peak_memory() -> int:
    """The most main memory this process has held so far, in bytes, mapped files included where pages were read."""
    if sys.platform == "win32":
        return int(_windows_counters().peak)
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # not ru_maxrss: on Linux it starts with the peak of the parent
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not tell the peak memory of a process")


@dataclass(frozen=True)
class Held:
    """Main memory of this process in bytes: all of it, and what no other process shares."""

    resident: int
    own: int


def memory_held() -> Held:
    """What is held now. A page of a mapped file is shared when another process has it mapped and has read it too."""
    if sys.platform == "win32":
        counters = _windows_counters()
        return Held(counters.now, counters.pagefile)
    try:
        text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii", errors="replace")
    except OSError:
        give_up("this system does not tell what memory a process shares: Linux and Windows do")
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in text.splitlines()[1:]}
    return Held(sizes["Rss:"], sizes["Private_Clean:"] + sizes["Private_Dirty:"])


def _windows_counters() -> Any:
    size_names = ("peak", "now", "pool_peak", "pool", "nonpaged_peak", "nonpaged", "pagefile", "pagefile_peak")

    class Counters(ctypes.Structure):
        _fields_ = (
            ("size", ctypes.c_ulong),
            ("faults", ctypes.c_ulong),
            *((name, ctypes.c_size_t) for name in size_names),
        )

    counters = Counters(size=ctypes.sizeof(Counters))
    if sys.platform != "win32":
        return counters
    kernel = ctypes.windll.kernel32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    if not kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.size):
        raise OSError("GetProcessMemoryInfo failed")
    return counters
