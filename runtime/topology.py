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

from . import windows

_CPUS = Path("/sys/devices/system/cpu")
_FAST_CPUS = Path("/sys/devices/cpu_core/cpus")  # Intel hybrids list their performance cores here
# Where cores differ elsewhere: a file of each processor, and the part of the largest number that makes a core fast.
# Capacity is speed by the kernel's own table: little cores have at most half, middle ones about three quarters. The
# highest frequency alone tells less: favoured cores of one kind differ by a tenth, compact cores have about two thirds.
_SPEEDS = (("cpu_capacity", 0.6), ("cpufreq/cpuinfo_max_freq", 0.75))
_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # control groups write "no limit" as a number near 2**63


@dataclass(frozen=True)
class Memory:
    """Bytes of main memory that this process may use in all, and what is free for it now."""

    total: int
    available: int


def usable_cpus() -> int:
    """Logical processors this process may run on, at least 1."""
    return max(1, min(len(_allowed()), _quota_cpus() or sys.maxsize))


def physical_cores() -> int:
    """The default number of threads: physical cores this process may run on, only the fast ones where there are two
    kinds.

    A second thread on the same core adds nothing to kernels that already keep its vector units busy. Threads on slow
    cores get less to do (kernels/share.py), but every operation still waits for the last piece that one of them took.
    """
    if sys.platform == "darwin":
        cores = _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu")
    elif sys.platform == "win32":
        cores = windows.fast_cores(windows.cores(), windows.process_mask())
    else:
        cores = _linux_cores()
    return max(1, min(cores or usable_cpus(), usable_cpus()))


def memory() -> Memory:
    """Main memory, or what the container grants of it. Zeros when it cannot be learned."""
    if sys.platform == "darwin":
        total = _sysctl("hw.memsize") or 0
        return Memory(total, total * 3 // 4)  # free pages say little there: most of the rest is reclaimable cache
    if sys.platform == "win32":
        return Memory(*windows.memory())
    return _linux_memory()


def _allowed() -> set[int]:
    """Numbers of the processors in the affinity mask."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    mask = windows.process_mask()
    return set(range(os.cpu_count() or 1)) if mask is None else {i for i in range(mask.bit_length()) if mask >> i & 1}


def _quota_cpus() -> int | None:
    """Processors a Linux control group grants, rounded up, the tightest of nested ones; None without a limit."""
    grants = []
    for folder in _cgroup_folders(""):
        quota, period = _words(folder / "cpu.max") or ("max", "100000")
        grants.append(_ceil_ratio(quota, period))
    for folder in _cgroup_folders("cpu"):
        old = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
        if old[0] and old[1]:
            grants.append(_ceil_ratio(old[0][0], old[1][0]))
    return min((grant for grant in grants if grant is not None), default=None)


def _linux_cores() -> int:
    """Distinct cores among the fast processors of the affinity mask, counted by their lists of siblings."""
    allowed = _allowed()
    wanted = (allowed & _cpu_list(_text(_FAST_CPUS))) or _fastest(allowed)
    return len({_siblings(n) or str(n) for n in wanted})


def _fastest(cpus: set[int]) -> set[int]:
    """Those of the fast kind, by the first of _SPEEDS that tells them apart."""
    for name, part in _SPEEDS:
        speeds = {n: _number(_CPUS / f"cpu{n}" / name) or 0 for n in cpus}
        fast = {n for n, speed in speeds.items() if speed >= part * max(speeds.values(), default=0)}
        if fast < cpus:
            return fast
    return cpus


def _siblings(cpu: int) -> str:
    """The processors of its core, as a list; older kernels have another name for it."""
    folder = _CPUS / f"cpu{cpu}" / "topology"
    return _text(folder / "core_cpus_list") or _text(folder / "thread_siblings_list")


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
    new = [(folder, "memory.max", "memory.current") for folder in _cgroup_folders("")]
    old = [(folder, "memory.limit_in_bytes", "memory.usage_in_bytes") for folder in _cgroup_folders("memory")]
    return [*new, *old]


def _cgroup_folders(controller: str) -> list[Path]:
    """Folders of the control group this process is in, innermost first.

    `controller` names one of the separate hierarchies of version 1; "" is the one hierarchy of version 2.
    """
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, _, rest = line.partition(":")
        names, _, inside = rest.partition(":")
        if controller in names.split(","):
            root = _CGROUP / controller
            inner = root / inside.strip().lstrip("/")
            return [f for f in (inner, *inner.parents) if f == root or root in f.parents]
    return [_CGROUP / controller]


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
