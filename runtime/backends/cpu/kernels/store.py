"""Keys and values into the pages of the cache."""

from __future__ import annotations

import numpy as np
from numba.core import types

from ..args import SPLIT_TOKENS
from ..jit import device, kernel
from ..simd.emit import F32, Emitter, Vec
from ..simd.table import f32_view, i32_view, load, store_f16, store_half, store_i64
from ..simd.types import address, emitted
from .share import share

PAGE = 32


@emitted(types.void, address, address)
def _scatter16(e: Emitter, x: Vec, column: Vec) -> None:
    """16 float32 to float16, one in each of 16 lines of a page."""
    halves = e.float_to_half(e.load(F32, 16, x.ll))
    for i in range(16):
        e.store(halves.lane(i), column.ll, 2 * PAGE * i)


@device
def _store_key(x, n, column):  # type: ignore[no-untyped-def]
    """One key of n dims, transposed: dim i goes to line i."""
    whole = n // 16 * 16
    for i in range(0, whole, 16):
        _scatter16(x + np.uint64(4 * i), column + np.uint64(2 * PAGE * i))
    rest = f32_view(x, n)
    for i in range(whole, n):
        store_f16(column + np.uint64(2 * PAGE * i), rest[i])


@device
def _store_value(x, n, line):  # type: ignore[no-untyped-def]
    """One value of n dims."""
    whole = n // 16 * 16
    for i in range(0, whole, 16):
        store_half(line + np.uint64(2 * i), load(x + np.uint64(4 * i)))
    rest = f32_view(x, n)
    for i in range(whole, n):
        store_f16(line + np.uint64(2 * i), rest[i])


@kernel("kv_store")
def kv_store(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """Token t at position p goes to slot p % 32 of page pages[sequence, p // 32].

    Threads take ranges of (head, token): neighbouring tokens share cache lines of a key page, so they share a thread.
    `counters` of attention_decode, which comes next, are set to zero: a cancelled step may have left something there.
    """
    positions, sequence = i32_view(step.positions, step.n_tokens), i32_view(step.sequence, step.n_tokens)
    pages = i32_view(step.pages, step.n_sequences * step.pages_per_sequence)
    if a.counters != 0 and tid == 0:
        for i in range(min(step.n_tokens, SPLIT_TOKENS) * a.n_head_kv):
            store_i64(a.counters + np.uint64(8 * i), np.int64(0))
    start, stop = share(step.n_tokens * a.n_head_kv, 1, tid, nth)
    for item in range(start, stop):
        head, t = item // step.n_tokens, item % step.n_tokens
        position = np.int64(positions[t])
        page = np.int64(pages[sequence[t] * step.pages_per_sequence + position // PAGE])
        if page < 0:
            continue
        slot, tile, row = position % PAGE, page * a.n_head_kv + head, t * a.n_head_kv + head
        _store_key(
            a.k + np.uint64(4 * row * a.key_dim), a.key_dim, a.keys + np.uint64(2 * (tile * a.key_dim * PAGE + slot))
        )
        _store_value(
            a.v + np.uint64(4 * row * a.value_dim),
            a.value_dim,
            a.values + np.uint64(2 * (tile * PAGE + slot) * a.value_dim),
        )
