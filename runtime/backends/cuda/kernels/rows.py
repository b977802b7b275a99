"""Ops that pick rows: `embed` of a table, `take_rows` of a value."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..package import cuda
from ..simt import device
from ..weights import UNPACK
from .linear import FLOAT_WEIGHTS, FLOATS


@device
def _code(words, i):  # type: ignore[no-untyped-def]
    """The signed byte i of words of four."""
    bits = words[i // 4] >> 8 * (i % 4) & 255
    return bits - ((bits & 128) << 1)


def _writer(name: str) -> Any:
    """f(w, row, table, out, at, i, factor): weights of a thread's share i of a row, times `factor`, from out[at] on.

    A share is a group of 32, or one weight of floats.
    """
    if name in FLOATS:
        weight = FLOAT_WEIGHTS[name]

        @device
        def write_one(w, row, table, out, at, i, factor):  # type: ignore[no-untyped-def]
            out[at + i] = weight(w, row, i) * factor

        return write_one
    unpack = UNPACK[name]

    @device
    def write_group(w, row, table, out, at, i, factor):  # type: ignore[no-untyped-def]
        codes = cuda.local.array(8, np.int32)
        scales = cuda.local.array(4, np.float32)
        unpack(w, row, i, table, codes, scales)
        for k in range(32):
            value = scales[k // 16] * np.float32(_code(codes, k)) + scales[2 + k // 16]
            out[at + 32 * i + k] = value * factor

    return write_group


@cache
def embed(name: str) -> Any:
    """out[t] = factor * row chosen[t] of w, uint8 [rows * row_bytes]; a block for each token."""
    write = _writer(name)

    @cuda.jit
    def embed_rows(w, row_bytes, table, shares, cols, chosen, m, factor, out):  # type: ignore[no-untyped-def]
        for t in range(cuda.blockIdx.x, m, cuda.gridDim.x):
            row = np.int64(chosen[t]) * row_bytes
            for i in range(cuda.threadIdx.x, shares, cuda.blockDim.x):
                write(w, row, table, out, t * cols, i, factor)

    return embed_rows


@cuda.jit
def take_rows(x, cols, outputs, m, out):  # type: ignore[no-untyped-def]
    """out[i] = x[outputs[i]]"""
    for i in range(cuda.blockIdx.x, m, cuda.gridDim.x):
        source = np.int64(outputs[i])
        for c in range(cuda.threadIdx.x, cols, cuda.blockDim.x):
            out[i * cols + c] = x[source * cols + c]
