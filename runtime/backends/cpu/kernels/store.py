"""Keys and values into the pages of the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from ..args import SPLIT_TOKENS
from ..jit import Kernel, device, kernel_family
from ..simd.emit import F32, Emitter, Vec
from ..simd.table import f32_view, i32_view, load, store_i64
from ..simd.types import address, emitted
from .pages import PAGE, PAGE_TYPES, PageType
from .share import share


def _storing(page: PageType) -> tuple[Any, Any]:
    """The two functions that put n dims at an address into a page, of a key and of a value."""
    size, store_some, store_one = page.size, page.store, page.store_one

    @emitted(types.void, address, address)
    def scatter16(e: Emitter, x: Vec, column: Vec) -> None:
        """16 numbers, one in each of 16 lines of a page."""
        numbers = page.narrowed(e, e.load(F32, 16, x.ll))
        for i in range(16):
            e.store(numbers.lane(i), column.ll, size * PAGE * i)

    @device
    def store_key(x, n, column):  # type: ignore[no-untyped-def]
        """Transposed: dim i goes to line i."""
        whole = n // 16 * 16
        for i in range(0, whole, 16):
            scatter16(x + np.uint64(4 * i), column + np.uint64(size * PAGE * i))
        rest = f32_view(x, n)
        for i in range(whole, n):
            store_one(column + np.uint64(size * PAGE * i), rest[i])

    @device
    def store_value(x, n, line):  # type: ignore[no-untyped-def]
        whole = n // 16 * 16
        for i in range(0, whole, 16):
            store_some(line + np.uint64(size * i), load(x + np.uint64(4 * i)))
        rest = f32_view(x, n)
        for i in range(whole, n):
            store_one(line + np.uint64(size * i), rest[i])

    return store_key, store_value


@kernel_family("kv_store")
def kv_store(variant: str) -> Kernel:
    """Token t at position p goes to slot p % 32 of page pages[sequence, p // 32].

    Threads take ranges of (head, token): neighbouring tokens share cache lines of a key page, so they share a thread.
    `counters` of attention_decode, which comes next, are set to zero: a cancelled step may have left something there.
    """
    size, (store_key, store_value) = PAGE_TYPES[variant].size, _storing(PAGE_TYPES[variant])

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
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
            store_key(
                a.k + np.uint64(4 * row * a.key_dim),
                a.key_dim,
                a.keys + np.uint64(size * (tile * a.key_dim * PAGE + slot)),
            )
            store_value(
                a.v + np.uint64(4 * row * a.value_dim),
                a.value_dim,
                a.values + np.uint64(size * (tile * PAGE + slot) * a.value_dim),
            )

    return run
