"""Run one kernel from Python: compile it in a child, fill in its records, do the share of every thread in turn."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
from halfbyte.runtime.backends.cpu import args as records
from halfbyte.runtime.backends.cpu import objects
from halfbyte.runtime.backends.cpu.compile import ensure_compiled
from halfbyte.runtime.backends.cpu.team_layout import QUEUE_BYTES
from halfbyte.runtime.step import Step
from numpy.typing import NDArray

_FUNCTION = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)
_GUARD, _CANARY = 4096, 0xA5


def fields(step: Step) -> dict[str, Any]:
    """A step as fields of the step record."""
    return {
        "n_tokens": step.n_tokens, "n_outputs": len(step.outputs), "n_sequences": step.pages.shape[0],
        "pages_per_sequence": step.pages.shape[1], "tokens": step.tokens, "positions": step.positions,
        "sequence": step.sequence, "pages": step.pages, "outputs": step.outputs,
    }  # fmt: skip


def queue_of(nth: int) -> NDArray[np.uint8]:
    """A fresh queue, by which `nth` threads take work from each other in one call."""
    return np.zeros(nth * QUEUE_BYTES, np.uint8)


def call(
    name: str, *, nth: int = 2, tokens: int = 1, step: Step | Mapping[str, Any] | None = None, scratch: int = 1 << 20,
    cancelled: bool = False, **arguments: Any,
) -> None:  # fmt: skip
    """Run kernel `name` with `nth` threads, one after the other, the last one first.

    Arrays are passed as addresses, numbers as they are. `scratch` is the private memory of each thread in bytes; it is
    full of junk, and writing a byte outside it is an error.
    """
    ensure_compiled([name], workers=1)
    cancel = np.array([int(cancelled)], np.int64)
    values = {"n_tokens": tokens, **(fields(step) if isinstance(step, Step) else step or {}), "cancel": cancel}
    args, keep = _record(records.args_of(name.partition(".")[0]), arguments)
    record, keep_too = _record(records.STEP, values)
    memory = np.full(scratch + 2 * _GUARD, _CANARY, np.uint8)
    inside = slice(_GUARD, _GUARD + scratch)
    record["scratch_bytes"] = scratch
    function, nothing = _FUNCTION(objects.load(name)), ctypes.c_void_p()
    for tid in reversed(range(nth)):
        memory[inside] = 0xFF  # NaN as float32
        # Every thread gets the same memory, so that guards lie on both sides of it.
        record["scratch"] = (memory.ctypes.data + _GUARD - tid * scratch) % 2**64
        pointers = (ctypes.addressof(nothing), ctypes.addressof(nothing), args.ctypes.data, record.ctypes.data)
        status = function(*pointers, tid, nth)
        assert status == 0, f"{name} returned {status}"
        assert (memory[: inside.start] == _CANARY).all(), f"{name} wrote before its private memory"
        assert (memory[inside.stop :] == _CANARY).all(), f"{name} wrote past its private memory"
    del keep, keep_too


def _record(dtype: np.dtype, values: Mapping[str, Any]) -> tuple[np.ndarray, list[np.ndarray]]:
    record, keep = np.zeros((), dtype), []
    for field, value in values.items():
        if isinstance(value, np.ndarray):
            assert value.flags.c_contiguous, field
            keep.append(value)
            value = value.ctypes.data
        record[field] = value
    return record, keep
