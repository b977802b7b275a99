"""Products of prompts by cuBLAS, through nvmath-python, where that is installed: without it kernels/ make them all.

    tokens_from(type, cols)     rows of activations from which a product is cuBLAS's
    is_used(max_tokens)         whether steps of so many tokens have any, and there is what calls it
    CuBLAS(memory, stream)      a handle on the current device, with the memory that its products need:
        .prepare(graph, tokens) the memory that a graph's products take
        .reserve(...)           for a weight by itself; `settle` then takes what all of them need
        .multiply(...)          out [m, n] = x [m, cols] times the transpose of a weight of any type, with what is added
        .close()                ends the handle
    opened(memory, stream)      the same, or None where the package cannot reach the library

A product with a quantized weight is made in parts of rows: a kernel writes them as bfloat16 to memory that all products
share, then cuBLAS multiplies them with activations of bfloat16, and sums in float32. That needs compute capability 8.0.
The CPU backend rounds to bfloat16 likewise for prompts where it has tile registers.
"""

from __future__ import annotations

import importlib.util
import logging
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....formats.errors import ResourceError
from ...graph.ir import Graph
from .allocate import Array, DeviceMemory
from .kernels import dequantize
from .kernels.linear import FLOATS
from .package import SIMULATED, cuda
from .simt import THREADS, WARP, WARPS, blocks

PACKAGE = "nvmath"  # the module of nvmath-python
# Rows of activations from which cuBLAS is the better way. No GPU has measured it yet: `python -m benchmarks.cuda`
# prints both. Weights of 16 and 32 bits are multiplied in place, but for F16, which becomes bfloat16.
TOKENS_FROM = {"F32": 32, "BF16": 32, "F16": 64}
TOKENS_FROM_QUANTIZED = 64
LEAST = min(*TOKENS_FROM.values(), TOKENS_FROM_QUANTIZED)
NEVER = 1 << 62
PART = 128 << 20  # bytes of bfloat16 at once: rows enough for all of a GPU, also those of the widest layers
PART_ROWS = 128  # a multiple of it: what cuBLAS makes at once
WORKSPACE = 32 << 20  # what cuBLAS asks for on the newest devices
_TRANSPOSED, _AS_IT_IS = 1, 0  # cublasOperation_t
_FLOAT32, _BFLOAT16 = 0, 14  # cudaDataType_t
_SUM_FLOAT32, _ANY_ALGORITHM = 68, -1  # cublasComputeType_t, cublasGemmAlgo_t

_PRODUCTS = frozenset({"linear", "linear_add", "linear_glu"})
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Matrix:
    """A weight in device memory, uint8, and the points of its grid (weights/table.py)."""

    type: str
    bytes: Array
    row_bytes: int
    table: Array
    n: int
    cols: int


def is_used(max_tokens: int) -> bool:
    """Whether steps of so many tokens call it, if nvmath-python is there; that is imported only when they do."""
    return max_tokens >= LEAST and (SIMULATED or importlib.util.find_spec(PACKAGE) is not None)


def tokens_from(type_name: str, cols: int) -> int:
    """Rows of activations from which a product with such a weight is cuBLAS's."""
    if cols % 8:  # bfloat16 that does not begin at multiples of 16 bytes is no work for tensor cores
        return NEVER
    return TOKENS_FROM.get(type_name, TOKENS_FROM_QUANTIZED)


class CuBLAS:
    """A handle on a stream of the current device. It needs no device while memory is only counted."""

    def __init__(self, memory: DeviceMemory, stream: Any) -> None:
        """Raises what nvmath-python does where it cannot reach the library; see `opened`."""
        self._memory, self._stream = memory, stream
        self._needed, self._room = 0, 0
        self._scratch: Array = None
        self._one, self._zero = np.ones(1, np.float32), np.zeros(1, np.float32)
        self._handle = None
        if not memory.dry and not SIMULATED:
            from nvmath.bindings import cublas

            self._handle = cublas.create()
            # Also where a plan fails half way. Not when Python ends: the driver may have ended before.
            self._end = weakref.finalize(self, _destroy, int(cuda.get_current_device().id), self._handle)
            self._end.atexit = False
            cublas.set_stream(self._handle, int(stream))  # it takes the workspace back
        self._workspace = memory.empty(WORKSPACE, np.uint8)
        if self._handle is not None:
            cublas.set_workspace(self._handle, _address(self._workspace), WORKSPACE)

    def prepare(self, graph: Graph, max_tokens: int) -> None:
        """Take the memory that products of a graph need."""
        for node in graph.nodes:
            if node.op in _PRODUCTS:
                for role, weight in node.weights.items():
                    if not role.endswith("bias") and tokens_from(weight.type.name, weight.cols) <= max_tokens:
                        self.reserve(weight.type.name, weight.n_rows, weight.cols)
        self.settle()

    def reserve(self, type_name: str, n: int, cols: int) -> None:
        """There will be products with such a weight."""
        if type_name not in ("F32", "BF16"):
            self._needed = max(self._needed, -(-_part_rows(n, cols) * cols // 2) * 4)

    def settle(self) -> None:
        """Take what was reserved."""
        if self._room < self._needed:
            self._scratch = None
            self._memory.forget(self._room)
            self._scratch, self._room = self._memory.empty(self._needed, np.uint8), self._needed

    def multiply(self, w: Matrix, x: Array, m: int, out: Array, *, adds: bool = False) -> None:
        """out float32 [m, n] = x times the transpose of w, added to what is there if `adds`.

        x is flat: [m, cols] of bfloat16 in int32, two a word (kernels/dequantize.py, `to_brain`); float32 for F32.
        """
        rows = w.n if w.type in ("F32", "BF16") else _part_rows(w.n, w.cols)
        for first in range(0, w.n, rows):
            n = min(rows, w.n - first)
            self._gemm(w, self._floats(w, first, n), n, x, m, out, first, adds)

    def _floats(self, w: Matrix, first: int, n: int) -> Array:
        """Rows first ... first + n of a weight, as what cuBLAS multiplies."""
        if w.type in ("F32", "BF16"):
            return w.bytes
        if w.type in FLOATS:
            count = n * w.cols
            kernel = dequantize.halves_to_brain[blocks(-(-count // (2 * THREADS))), THREADS, self._stream]
            kernel(w.bytes, first * w.cols, count, self._scratch.view(np.int32))
        else:
            groups = w.cols // 32
            grid = blocks(-(-n * -(-groups // WARP) // WARPS))
            kernel = dequantize.dequantize(w.type)[grid, (WARP, WARPS), self._stream]
            kernel(w.bytes, w.row_bytes, w.table, first, n, groups, self._scratch)
        return self._scratch

    def _gemm(self, w: Matrix, a: Array, n: int, x: Array, m: int, out: Array, first: int, adds: bool) -> None:
        """Columns first ... first + n of out [m, w.n]. To cuBLAS rows are columns: it makes the transpose of out."""
        if SIMULATED:
            _simulate(a, w.type, n, w.cols, x, m, out[: m * w.n].reshape(m, w.n)[:, first : first + n], adds)
            return
        from nvmath.bindings import cublas

        element = _FLOAT32 if w.type == "F32" else _BFLOAT16
        cublas.gemm_ex(
            self._handle, _TRANSPOSED, _AS_IT_IS, n, m, w.cols, self._one.ctypes.data, _address(a), element, w.cols,
            _address(x), element, w.cols, (self._one if adds else self._zero).ctypes.data, _address(out) + 4 * first,
            _FLOAT32, w.n, _SUM_FLOAT32, _ANY_ALGORITHM,
        )  # fmt: skip

    def close(self) -> None:
        """End the handle."""
        if self._handle is not None:
            self._end()
        self._handle = self._scratch = self._workspace = None


def opened(memory: DeviceMemory, stream: Any) -> CuBLAS | None:
    """cuBLAS on the current device; None, and a warning, where its package is installed and cannot reach it."""
    try:
        return CuBLAS(memory, stream)
    except ResourceError:
        raise
    except Exception as error:  # whatever a package or a driver that does not fit raises: slower, and as right
        _log.warning("cuBLAS is not used for prompts: %s: %s", type(error).__name__, error)
        return None


def _part_rows(n: int, cols: int) -> int:
    """Rows of a weight that are written as bfloat16 at once: all, or parts of about the same size."""
    parts = -(-2 * n * cols // PART)
    return n if parts <= 1 else -(-n // parts // PART_ROWS) * PART_ROWS


def _destroy(device: int, handle: int) -> None:
    from nvmath.bindings import cublas

    with cuda.gpus[device]:
        cublas.destroy(handle)


def _address(array: Array) -> int:
    return int(array.__cuda_array_interface__["data"][0])


def _simulate(a: Array, type_name: str, n: int, cols: int, x: Array, m: int, out: Array, adds: bool) -> None:
    """What cuBLAS does, on the simulator's arrays: out [m, n]."""
    left, right = (_numbers(array, type_name)[: rows * cols].reshape(rows, cols) for array, rows in ((x, m), (a, n)))
    found = left @ right.T
    out[:] = found + out.copy_to_host() if adds else found


def _numbers(array: Array, type_name: str) -> NDArray[np.float32]:
    """float32, of bytes or words of float32 or bfloat16."""
    flat: NDArray[np.uint8] = array.copy_to_host().view(np.uint8)
    bits = flat.view(np.uint32) if type_name == "F32" else flat.view(np.uint16).astype(np.uint32) << np.uint32(16)
    found: NDArray[np.float32] = bits.view(np.float32)
    return found
