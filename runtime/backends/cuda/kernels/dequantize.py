"""For products that cuBLAS makes (cublas.py): weights and activations as bfloat16, and what products are added to.

From compute capability 8.0 on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .....formats.gguf.types import GGMLType
from ..package import cuda
from ..simt import WARP, WARPS, brain_pair, device, four, half, meet, put_four, shared_bytes
from ..weights import UNPACK

GROUP_BYTES = 64  # 32 weights
# Of a group in shared memory: 16 bytes more, so that those of eight lanes, which go at once, lie in 32 banks.
LINE = GROUP_BYTES + 16


@device
def _pair(codes, shift, scale, offset):  # type: ignore[no-untyped-def]
    """Two neighbouring bytes of a word of codes as weights."""
    low, high = codes >> shift & 255, codes >> shift + 8 & 255
    first = scale * np.float32(low - ((low & 128) << 1)) + offset
    return brain_pair(first, scale * np.float32(high - ((high & 128) << 1)) + offset)


@cache
def dequantize(name: str) -> Any:
    """Rows first_row ... first_row + n of w, uint8, as bfloat16 to the beginning of out, uint8; a warp for 32 groups.

    They go through shared memory both ways, so that neighbouring lanes load and store 16 bytes next to each other.
    """
    unpack = UNPACK[name]
    chunk = GGMLType[name].row_bytes(32 * WARP)  # whole blocks of every type
    room = (chunk + 15 + 15) // 16 * 16  # wherever it begins
    stage = shared_bytes(WARPS * (room + WARP * LINE))  # what is read, then what is made of it

    @cuda.jit
    def dequantize_rows(w, row_bytes, table, first_row, n, groups, out):  # type: ignore[no-untyped-def]
        codes = cuda.local.array(8, np.int32)
        scales = cuda.local.array(4, np.float32)
        buffer, lane = stage(), cuda.threadIdx.x
        own, to = cuda.threadIdx.y * room, WARPS * room + cuda.threadIdx.y * WARP * LINE
        chunks = (groups + WARP - 1) // WARP
        begin, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
        for item in range(begin, n * chunks, step):
            row, first = np.int64(item // chunks), item % chunks * WARP
            count = min(WARP, groups - first)
            start = (first_row + row) * row_bytes + first // WARP * chunk
            shift = start % 16
            meet()  # what was there has been read
            for i in range(lane, (shift + count * chunk // WARP + 15) // 16, WARP):
                put_four(buffer, own + 16 * i, four(w, start - shift + 16 * i))
            meet()
            if lane < count:
                unpack(buffer, own + shift, lane, table, codes, scales)
                for q in range(4):
                    left, right, scale, offset = codes[2 * q], codes[2 * q + 1], scales[q // 2], scales[2 + q // 2]
                    words = (
                        _pair(left, 0, scale, offset), _pair(left, 16, scale, offset),
                        _pair(right, 0, scale, offset), _pair(right, 16, scale, offset),
                    )  # fmt: skip
                    put_four(buffer, to + lane * LINE + 16 * q, words)
            meet()
            for i in range(lane, count * GROUP_BYTES // 16, WARP):
                words = four(buffer, to + i // 4 * LINE + i % 4 * 16)
                put_four(out, (row * groups + first) * GROUP_BYTES + 16 * i, words)

    return dequantize_rows


@cuda.jit
def halves_to_brain(w, first, n, out):  # type: ignore[no-untyped-def]
    """Weights first ... first + n of float16, uint8 bytes, to out int32, two a word; `first` is even.

    Behind the last weight there is room, see DeviceMemory.upload.
    """
    for i in range(cuda.grid(1), (n + 1) // 2, cuda.gridsize(1)):
        at = 2 * (np.int64(first) + 2 * i)
        out[i] = brain_pair(half(w, at), half(w, at + 2))


@cuda.jit
def to_brain(x, n, out):  # type: ignore[no-untyped-def]
    """float32 [n] to out int32, two a word."""
    for i in range(cuda.grid(1), (n + 1) // 2, cuda.gridsize(1)):
        out[i] = brain_pair(x[2 * i], x[2 * i + 1] if 2 * i + 1 < n else np.float32(0.0))


@cuda.jit
def begin(bias, has_bias, residual, has_residual, n, m, out):  # type: ignore[no-untyped-def]
    """out [m, n] before a product is added to it."""
    for i in range(cuda.grid(1), m * n, cuda.gridsize(1)):
        value = residual[i] if has_residual else np.float32(0.0)
        out[i] = value + bias[i % n] if has_bias else value
