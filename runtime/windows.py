"""What Windows says about processors and memory. Asked on Windows only; what it answers is taken apart anywhere."""

from __future__ import annotations

import ctypes
import struct
import sys
from dataclasses import dataclass

_CORE = 0  # RelationProcessorCore
_HEAD = struct.Struct("<II")  # relation, bytes of this record
_ABOUT = struct.Struct("<BB20xH")  # flags, efficiency class, number of group masks
_WORD = ctypes.sizeof(ctypes.c_size_t)
_MASK_BYTES = _WORD + 8  # mask, group, three reserved words


@dataclass(frozen=True)
class Core:
    """A core: how fast its kind is (higher is faster; 0 for all where there is one kind), and its processors."""

    efficiency_class: int
    masks: tuple[tuple[int, int], ...]  # group of processors, bits of this core in it


def parse_cores(table: bytes) -> list[Core]:
    """The records of GetLogicalProcessorInformationEx. What is cut off or of another kind is left out."""
    cores, at = [], 0
    while at + _HEAD.size + _ABOUT.size <= len(table):
        relation, size = _HEAD.unpack_from(table, at)
        if size < _HEAD.size or at + size > len(table):
            break
        if relation == _CORE and size >= _HEAD.size + _ABOUT.size:
            cores.append(_parse_core(table[at + _HEAD.size : at + size]))
        at += size
    return cores


def _parse_core(body: bytes) -> Core:
    _, efficiency_class, groups = _ABOUT.unpack_from(body)
    masks = []
    for i in range(groups):
        record = body[_ABOUT.size + i * _MASK_BYTES :][:_MASK_BYTES]
        if len(record) == _MASK_BYTES:
            mask, group = int.from_bytes(record[:_WORD], "little"), int.from_bytes(record[_WORD : _WORD + 2], "little")
            masks.append((group, mask))
    return Core(efficiency_class, tuple(masks))


def fast_cores(cores: list[Core], allowed: int | None) -> int:
    """How many cores of the fastest kind have a processor in the process's mask; None is no mask.

    A mask is about one group of processors, so it is not applied where there are several.
    """
    groups = {group for core in cores for group, _ in core.masks}
    if allowed is not None and len(groups) == 1:
        cores = [core for core in cores if any(mask & allowed for _, mask in core.masks)]
    fastest = max((core.efficiency_class for core in cores), default=0)
    return sum(core.efficiency_class == fastest for core in cores)


def cores() -> list[Core]:
    """All cores of the machine; an empty list where it cannot be asked."""
    if sys.platform != "win32":
        return []
    ask = ctypes.windll.kernel32.GetLogicalProcessorInformationEx
    size = ctypes.c_ulong(0)
    ask(_CORE, None, ctypes.byref(size))
    table = ctypes.create_string_buffer(max(1, size.value))
    return parse_cores(table.raw[: size.value]) if ask(_CORE, table, ctypes.byref(size)) else []


def process_mask() -> int | None:
    """The processors this process may run on, a bit each; None when it may use several groups or cannot be asked."""
    if sys.platform != "win32":
        return None
    kernel = ctypes.windll.kernel32
    mine, system = ctypes.c_size_t(0), ctypes.c_size_t(0)
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    known = kernel.GetProcessAffinityMask(process, ctypes.byref(mine), ctypes.byref(system))
    return mine.value if known and mine.value else None


def memory() -> tuple[int, int]:
    """Bytes of main memory, and of what a process may still get. Zeros where it cannot be asked."""
    if sys.platform != "win32":
        return 0, 0

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "page_total", "page_free")),
            *((name, ctypes.c_ulonglong) for name in ("virtual_total", "virtual_free", "extended")),
        )

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return 0, 0
    return status.total, min(status.free, status.page_free)
