"""Kernels read a weight to its last byte and not beyond: behind it may be the end of the mapped file."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType

from ..builders_quants import random_blocks
from ..kernel_harness import call
from .test_kernels_linear import FLOATS, QUANTIZED, columns, in_packets, quantized

ROOT = Path(__file__).parents[2]


def guarded(weight: np.ndarray) -> np.ndarray:
    """A copy of the weight whose last byte is the last before a page that must not be touched."""
    page = mmap.PAGESIZE
    room = -(-weight.nbytes // page) * page
    area = mmap.mmap(-1, room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(start + room), page, 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    flat = np.frombuffer(area, np.uint8, weight.nbytes, room - weight.nbytes)
    flat[:] = weight.reshape(-1).view(np.uint8)
    return flat.reshape(weight.shape)


def run_all(name: str) -> None:
    """Every kernel that reads weights in place, on one whose end is guarded. A read too far kills the process."""
    kind, rng = GGMLType[name], np.random.default_rng(3)
    for cols in columns(kind) if name in QUANTIZED else [1, 17, 168]:
        n, tokens = 11, 8  # several rows in the last call
        weight = guarded(random_blocks(kind, (n, cols), rng))
        x = rng.standard_normal((tokens, cols)).astype(np.float32)
        out = np.empty((tokens, n), np.float32)
        operand = {"x": x if name in FLOATS else in_packets(x)}
        in_columns = {"x": x} if name in FLOATS else quantized(x)
        shape = {"w": weight, "row_bytes": kind.row_bytes(cols), "n": n, "cols": cols, "out": out}
        for kernel, limit, made in (("linear_rows", tokens, operand), ("linear_gemm", 0, in_columns)):
            call(f"{kernel}.{name}", nth=1, tokens=tokens, repeat=1, limit=limit, **shape, **made)
        for few in (1, 2, 4):  # products of their own
            call(f"linear_rows.{name}", nth=1, tokens=few, repeat=1, limit=few, **shape, **operand)
        for few in (1, 2, 4, tokens):
            both = {"gate": weight, "up": weight, "row_bytes": kind.row_bytes(cols), "n": n, "cols": cols, "out": out}
            call(f"linear_glu.{name}.silu", nth=1, tokens=few, repeat=1, **both, **operand)
        experts = {"n_expert": 1, "n_used": 1, "shared": 0, "ids": np.zeros(tokens, np.int32)}
        call(f"expert_rows.{name}", nth=1, tokens=tokens, **experts, **shape, **operand)
        rows = np.empty((1, cols), np.float32)
        last = np.array([n - 1], np.int32)
        shape["out"] = rows
        call(f"embed.{name}", nth=1, tokens=1, step={"tokens": last}, **shape, source=0, factor=1.0)


@pytest.mark.skipif(os.name != "posix", reason="page protection is set with mprotect")
@pytest.mark.parametrize("name", [*QUANTIZED, *FLOATS])
def test_nothing_is_read_behind_a_weight(name: str) -> None:
    code = f"from tests.oracle.test_kernels_guard import run_all; run_all({name!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])


@pytest.mark.skipif(os.name != "posix", reason="page protection is set with mprotect")
def test_the_guard_kills() -> None:
    code = (
        "import numpy as np, ctypes; from tests.oracle.test_kernels_guard import guarded;"
        "w = guarded(np.zeros(100, np.uint8)); ctypes.string_at(w.ctypes.data, 101)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode < 0
