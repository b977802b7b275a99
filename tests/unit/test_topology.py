"""Processors and memory, on made-up machines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from halfbyte.runtime import topology
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
