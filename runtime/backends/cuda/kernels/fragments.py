"""Tiles of results on tensor cores: which warp and lane has which, and how they come to where they belong.

A block makes ROWS rows of the weight by TOKENS tokens. Its warps lie BANDS down and SIDES across; each has DOWN by
ACROSS fragments of 16 rows by 8 tokens. Of a fragment lane 4 r + k has four results: of rows r and r + 8, each for
tokens 2 k and 2 k + 1. https://docs.nvidia.com/cuda/parallel-thread-execution (mma.m16n8k32)
"""

from __future__ import annotations

import numpy as np

from ..package import SIMULATED, cuda
from ..simt import WARP, bits_of, float_of

CAPABILITY = (8, 0)  # of GPUs that have the instructions
BANDS, SIDES, DOWN, ACROSS = (1, 1, 1, 1) if SIMULATED else (4, 2, 2, 4)
ROWS, TOKENS, WARPS = 16 * BANDS * DOWN, 8 * SIDES * ACROSS, BANDS * SIDES
ROOM = TOKENS * (16 * BANDS + 1)  # words of shared memory that `store` needs


@cuda.jit(device=True)
def clear(acc):  # type: ignore[no-untyped-def]
    """Before the first product: acc float32 [DOWN, ACROSS, 4]."""
    for i in range(DOWN):
        for j in range(ACROSS):
            for e in range(4):
                acc[i, j, e] = np.float32(0.0)


@cuda.jit(device=True)
def store(acc, words, n, m, bias, has_bias, residual, has_residual, out):  # type: ignore[no-untyped-def]
    """All results of a block to out [m, n], over int32 `words` of shared memory: neighbouring threads then write
    neighbouring rows.
    """
    lane, warp = cuda.threadIdx.x, cuda.threadIdx.y
    first_row, first_token = cuda.blockIdx.x * ROWS, cuda.blockIdx.y * TOKENS
    own_row, own_token = warp // SIDES * 16 + lane // 4, warp % SIDES * ACROSS * 8 + 2 * (lane % 4)
    line = 16 * BANDS + 1
    for i in range(DOWN):
        cuda.syncthreads()
        for j in range(ACROSS):
            for e in range(4):
                words[(own_token + 8 * j + e % 2) * line + own_row + 8 * (e // 2)] = bits_of(acc[i, j, e])
        cuda.syncthreads()
        for task in range(lane + WARP * warp, TOKENS * 16 * BANDS, WARP * WARPS):
            r, t = task % (16 * BANDS), task // (16 * BANDS)
            row, token = first_row + (r // 16 * DOWN + i) * 16 + r % 16, first_token + t
            if row < n and token < m:
                value = float_of(words[t * line + r])
                if has_bias:
                    value += bias[row]
                if has_residual:
                    value += residual[token * n + row]
                out[token * n + row] = value
