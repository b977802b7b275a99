"""Processors and memory, on made-up machines."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from halfbyte.runtime import topology, windows
from halfbyte.runtime.topology import Memory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's files")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch):
    """Files of a machine: what is not written does not exist."""
    texts: dict[str, str] = {}
    monkeypatch.setattr(topology, "_text", lambda path: texts.get(path.as_posix(), ""))
    return texts


def test_this_machine():
    assert 1 <= topology.physical_cores() <= topology.usable_cpus()
    ram = topology.memory()
    assert 0 < ram.available <= ram.total


@linux
def test_two_threads_of_a_core_count_once(machine, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3})
    for n in range(4):
        machine[f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list"] = "0,2" if n % 2 == 0 else "1,3"
    assert (topology.physical_cores(), topology.usable_cpus()) == (2, 4)


@linux
def test_without_a_table_every_processor_is_a_core(machine, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 5})
    assert topology.physical_cores() == 3


@linux
def test_slow_cores_are_left_out_unless_the_process_is_bound_to_them(machine, monkeypatch):
    machine["/sys/devices/cpu_core/cpus"] = "0-3\n"
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert topology.physical_cores() == 4
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {6, 7})
    assert topology.physical_cores() == 2


def bind(monkeypatch: pytest.MonkeyPatch, cpus: Iterable[int]) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(cpus), raising=False)


def speeds(machine: dict[str, str], name: str, values: Iterable[int]) -> None:
    for n, value in enumerate(values):
        machine[f"/sys/devices/system/cpu/cpu{n}/{name}"] = f"{value}\n"


@linux
def test_a_laptop_with_two_kinds_of_cores(machine, monkeypatch):
    """Core i7-1260P: 4 fast cores of two threads, 8 slow ones."""
    machine["/sys/devices/cpu_core/cpus"] = "0-7\n"
    machine["/sys/devices/cpu_atom/cpus"] = "8-15\n"
    for n in range(16):
        siblings = f"{n // 2 * 2}-{n // 2 * 2 + 1}" if n < 8 else str(n)
        machine[f"/sys/devices/system/cpu/cpu{n}/topology/core_cpus_list"] = siblings + "\n"
    speeds(machine, "cpufreq/cpuinfo_max_freq", [4_700_000] * 8 + [3_400_000] * 8)
    bind(monkeypatch, range(16))
    assert (topology.physical_cores(), topology.usable_cpus()) == (4, 16)
    bind(monkeypatch, [0, 2, 3, 8, 9])
    assert topology.physical_cores() == 2, "bound to two of the fast cores and to slow ones"
    bind(monkeypatch, range(8, 16))
    assert topology.physical_cores() == 8


@linux
@pytest.mark.parametrize(
    ("capacities", "fast"),
    [
        ([250, 250, 250, 250, 760, 760, 760, 1024], 4),  # a phone: little, middle and one prime core
        ([446, 446, 446, 446, 1024, 1024], 2),  # big.LITTLE
        ([1024, 1024, 930, 930], 4),  # one kind, sorted by quality
        ([1024], 1),
        ([0, 0], 2),  # not known
    ],
)
def test_capacities_tell_fast_from_slow(machine, monkeypatch, capacities: list[int], fast: int):
    speeds(machine, "cpu_capacity", capacities)
    bind(monkeypatch, range(len(capacities)))
    assert topology.physical_cores() == fast


@linux
@pytest.mark.parametrize(
    ("megahertz", "fast"), [([5100] * 4 + [3300] * 8, 4), ([5700, 5600, 5500, 5400], 4), ([3000] * 6, 6)]
)
def test_frequencies_tell_compact_cores_from_favoured_ones(machine, monkeypatch, megahertz: list[int], fast: int):
    speeds(machine, "cpu_capacity", [1024] * len(megahertz))  # says nothing
    speeds(machine, "cpufreq/cpuinfo_max_freq", [1000 * m for m in megahertz])
    bind(monkeypatch, range(len(megahertz)))
    assert topology.physical_cores() == fast


@linux
def test_the_tightest_of_nested_groups_counts(machine, monkeypatch):
    bind(monkeypatch, range(16))
    machine["/proc/self/cgroup"] = "0::/app/one\n"
    machine["/sys/fs/cgroup/app/one/cpu.max"] = "800000 100000"
    machine["/sys/fs/cgroup/app/cpu.max"] = "300000 100000"
    assert topology.usable_cpus() == topology.physical_cores() == 3


@linux
def test_the_older_kind_of_group_may_be_nested_too(machine, monkeypatch):
    bind(monkeypatch, range(16))
    machine["/proc/self/cgroup"] = "4:memory:/box\n2:cpu,cpuacct:/box/one\n0::/\n"
    machine["/sys/fs/cgroup/cpu/box/cpu.cfs_quota_us"] = "250000\n"
    machine["/sys/fs/cgroup/cpu/box/cpu.cfs_period_us"] = "100000\n"
    machine["/proc/meminfo"] = "MemTotal: 1000 kB\nMemAvailable: 800 kB\n"
    machine["/sys/fs/cgroup/memory/box/memory.limit_in_bytes"] = str(500 * 1024)
    machine["/sys/fs/cgroup/memory/box/memory.usage_in_bytes"] = "0"
    assert topology.usable_cpus() == 3
    assert topology.memory() == Memory(500 * 1024, 500 * 1024)


@pytest.mark.parametrize(
    ("table", "cores"),
    [
        ({"hw.perflevel0.physicalcpu": 6, "hw.perflevel1.physicalcpu": 4, "hw.physicalcpu": 10}, 6),  # Apple silicon
        ({"hw.physicalcpu": 4}, 4),  # Intel
        ({}, 8),  # nothing is known: all processors
    ],
)
def test_macs_count_their_performance_cores(monkeypatch, table: dict[str, int], cores: int):
    monkeypatch.setattr(topology.sys, "platform", "darwin")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 10 if table else 8)
    monkeypatch.setattr(topology, "_sysctl", table.get)
    monkeypatch.setattr(topology, "_text", lambda path: "")
    assert topology.physical_cores() == cores


def record(efficiency: int, mask: int, group: int = 0, relation: int = 0) -> bytes:
    """A record of GetLogicalProcessorInformationEx as 64-bit Windows writes it: 48 bytes."""
    return struct.pack("<IIBB20xHQHHHH", relation, 48, 0, efficiency, 1, mask, group, 0, 0, 0)


def test_windows_counts_cores_of_the_fastest_kind(monkeypatch):
    table = b"".join([*(record(1, 3 << 2 * i) for i in range(4)), *(record(0, 1 << i) for i in range(8, 16))])
    cores = windows.parse_cores(table)
    assert len(cores) == 12
    assert cores[0] == windows.Core(1, ((0, 3),)) and cores[-1] == windows.Core(0, ((0, 1 << 15),))
    for mask, fast in ((None, 4), (0xFFFF, 4), (0b110001, 2), (0xFF00, 8), (0b10, 1)):
        assert windows.fast_cores(cores, mask) == fast
    monkeypatch.setattr(topology.sys, "platform", "win32")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr(topology, "_text", lambda path: "")
    monkeypatch.setattr(windows, "cores", lambda: cores)
    monkeypatch.setattr(windows, "process_mask", lambda: 0b110001)
    assert (topology.physical_cores(), topology.usable_cpus()) == (2, 3)


def test_windows_with_several_groups_of_processors():
    cores = windows.parse_cores(b"".join(record(0, 1 << i, group) for group in (0, 1) for i in range(64)))
    assert windows.fast_cores(cores, 1) == 128, "a mask holds for one group only"


def test_records_that_are_cut_off_or_of_another_kind():
    whole = record(0, 1)
    assert len(windows.parse_cores(record(0, 3, relation=3) + whole)) == 1
    assert windows.parse_cores(whole[:40]) == windows.parse_cores(b"") == []
    assert windows.parse_cores(struct.pack("<II", 0, 0) * 8) == [], "a record of no length is the end"
    assert windows.fast_cores([], 1) == 0


@linux
@pytest.mark.parametrize(("limit", "cpus"), [("150000 100000", 2), ("max 100000", 8), ("50000 100000", 1), ("", 8)])
def test_a_containers_quota_counts(machine, monkeypatch, limit: str, cpus: int):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    machine["/proc/self/cgroup"] = "0::/app/one\n"
    machine["/sys/fs/cgroup/app/cpu.max"] = limit
    assert topology.usable_cpus() == topology.physical_cores() == cpus


@linux
def test_the_older_kind_of_quota(machine, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    machine["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"] = "300000\n"
    machine["/sys/fs/cgroup/cpu/cpu.cfs_period_us"] = "100000\n"
    assert topology.usable_cpus() == 3
    machine["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"] = "-1\n"
    assert topology.usable_cpus() == 8


@linux
def test_memory_is_what_the_container_grants(machine):
    machine["/proc/meminfo"] = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 800 kB\n"
    assert topology.memory() == Memory(1000 * 1024, 800 * 1024)
    machine["/proc/self/cgroup"] = "0::/\n"
    machine["/sys/fs/cgroup/memory.max"] = str(500 * 1024)
    machine["/sys/fs/cgroup/memory.current"] = str(450 * 1024)
    assert topology.memory() == Memory(500 * 1024, 50 * 1024)
    machine["/sys/fs/cgroup/memory.max"] = "max"
    assert topology.memory() == Memory(1000 * 1024, 800 * 1024)


@pytest.mark.parametrize(("text", "cpus"), [("0-3,8\n", {0, 1, 2, 3, 8}), ("", set()), ("5", {5}), ("x-y", set())])
def test_cpu_lists(text: str, cpus: set[int]):
    assert topology._cpu_list(text) == cpus
