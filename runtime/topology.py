"""What the machine offers this process: processors and memory, as limited by affinity masks and containers.

Nothing here is assumed to be present: each question is asked of the operating system in turn, and what cannot be
learned falls back to a simpler answer.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_FAST_CPUS = Path("/sys/devices/cpu_core/cpus")  # Intel hybrids list their performance cores here
_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # control groups write "no limit" as a number near 2**63


@dataclass(frozen=True)
class Memory:
    """Bytes of main memory that this process may use in all, and what is free for it now."""

    total: int
    available: int


def usable_cpus() -> int:
    """Logical processors this process may run on, at least 1."""
    return max(1, min(_affinity_count(), _quota_cpus() or sys.maxsize))


def physical_cores() -> int:
    """The default number of threads: physical cores this process may run on, only the fast ones where there are two
    kinds.

    A second thread on the same core adds nothing to kernels that already keep its vector units busy, and every
    operation ends when its slowest thread does, so that slow cores would hold the fast ones back.
    """
    if sys.platform == "darwin":
        cores = _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu")
    elif sys.platform == "win32":
        cores = _windows_cores()
    else:
        cores = _linux_cores()
    return max(1, min(cores or usable_cpus(), usable_cpus()))


def memory() -> Memory:
    """Main memory, or what the container grants of it. Zeros when it cannot be learned."""
    if sys.platform == "darwin":
        total = _sysctl("hw.memsize") or 0
        return Memory(total, total * 3 // 4)  # free pages say little there: most of the rest is reclaimable cache
    if sys.platform == "win32":
        return _windows_memory()
    return _linux_memory()


def _affinity_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota_cpus() -> int | None:
    """Processors a Linux control group grants, rounded up; None without a limit."""
    for folder in _cgroup_folders():
        quota, period = _words(folder / "cpu.max") or ("max", "100000")
        if quota != "max":
            return _ceil_ratio(quota, period)
    old = _CGROUP / "cpu"
    quota_v1, period_v1 = _words(old / "cpu.cfs_quota_us"), _words(old / "cpu.cfs_period_us")
    if quota_v1 and period_v1 and quota_v1[0] != "-1":
        return _ceil_ratio(quota_v1[0], period_v1[0])
    return None


def _linux_cores() -> int:
    """Distinct cores among the processors of the affinity mask, counted by their lists of siblings."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    fast = _cpu_list(_text(_FAST_CPUS))
    wanted = (allowed & fast) or allowed
    return len({_text(_CPUS / f"cpu{n}" / "topology" / "thread_siblings_list") or str(n) for n in wanted})


def _linux_memory() -> Memory:
    fields = {}
    for line in _text(Path("/proc/meminfo")).splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()
        if number and number[0].isdigit():
            fields[name] = int(number[0]) * 1024
    total, available = fields.get("MemTotal", 0), fields.get("MemAvailable", fields.get("MemFree", 0))
    for folder, limit_name, used_name in _memory_limits():
        limit, used = _number(folder / limit_name), _number(folder / used_name)
        if limit is not None and limit < _UNLIMITED:
            total = min(total, limit) if total else limit
            available = min(available, max(0, limit - (used or 0)))
    return Memory(total, available)


def _memory_limits() -> list[tuple[Path, str, str]]:
    new = [(folder, "memory.max", "memory.current") for folder in _cgroup_folders()]
    return [*new, (_CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")]


def _cgroup_folders() -> list[Path]:
    """Folders of the control group this process is in, innermost first (version 2 of the hierarchy)."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::"):
            inner = _CGROUP / line[3:].strip().lstrip("/")
            return [f for f in (inner, *inner.parents) if f == _CGROUP or _CGROUP in f.parents]
    return [_CGROUP]


def _windows_cores() -> int | None:
    """Cores of the process's affinity mask (one entry per core in the system's table)."""
    if sys.platform != "win32":
        return None

    class Entry(ctypes.Structure):
        _fields_ = (("mask", ctypes.c_size_t), ("relation", ctypes.c_int), ("data", ctypes.c_ulonglong * 2))

    kernel = ctypes.windll.kernel32
    size = ctypes.c_ulong(0)
    kernel.GetLogicalProcessorInformation(None, ctypes.byref(size))
    table = (Entry * max(1, size.value // ctypes.sizeof(Entry)))()
    if not kernel.GetLogicalProcessorInformation(table, ctypes.byref(size)):
        return None
    mine, system = ctypes.c_size_t(0), ctypes.c_size_t(0)
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    if not kernel.GetProcessAffinityMask(process, ctypes.byref(mine), ctypes.byref(system)) or not mine.value:
        mine = ctypes.c_size_t(-1)
    return sum(1 for entry in table if entry.relation == 0 and entry.mask & mine.value)


def _windows_memory() -> Memory:
    if sys.platform != "win32":
        return Memory(0, 0)

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "page_total", "page_free")),
            *((name, ctypes.c_ulonglong) for name in ("virtual_total", "virtual_free", "extended")),
        )

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return Memory(0, 0)
    return Memory(status.total, min(status.free, status.page_free))


def _sysctl(name: str) -> int | None:
    """An integer of macOS's system table, None when it has no such name."""
    if sys.platform != "darwin":
        return None
    value, size = ctypes.c_uint64(0), ctypes.c_size_t(8)
    library = ctypes.CDLL(None)
    failed = library.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return None if failed else int(value.value)


def _cpu_list(text: str) -> set[int]:
    """The kernel's list format: "0-3,8" is {0, 1, 2, 3, 8}."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return found


def _ceil_ratio(quota: str, period: str) -> int | None:
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return max(1, -(-int(quota) // int(period)))


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _words(path: Path) -> list[str] | None:
    words = _text(path).split()
    return words or None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
