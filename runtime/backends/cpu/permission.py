"""Asking the system for tile registers (AMX), which a process gets only when it says that it will use them."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys

_ARCH_PRCTL = 158  # x86-64 Linux: number of the system call
_ARCH_REQ_XCOMP_PERM = 0x1023
_TILE_DATA = 18  # the extended state that holds the tiles


@functools.cache
def tiles_permitted() -> bool:
    """Whether this process may use tile registers, now and in every thread.

    Linux refuses where the kernel is older than 5.16, or an alternate signal stack is too small for the state. Other
    systems are not asked: their kernels are those of the next level.
    """
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False
    try:
        answer = ctypes.CDLL(None, use_errno=True).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _TILE_DATA)
    except (OSError, AttributeError):
        return False
    return bool(answer == 0)
