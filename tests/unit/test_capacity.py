"""How many pages: bounded by memory, never below one sequence, and refused with numbers when that is impossible."""

from __future__ import annotations

import pytest
from halfbyte.formats.errors import ResourceError
from halfbyte.runtime.cache.kv import KVPool
from halfbyte.runtime.engine.capacity import pool_pages
from halfbyte.runtime.graph.ir import KVSpec
from halfbyte.runtime.step import PAGE

SPECS = [KVSpec(layer=i, n_head_kv=3, key_dim=8, value_dim=16) for i in range(5)]
PAGE_BYTES = 5 * 3 * (8 + 16) * PAGE * 2


def test_a_page_costs_what_the_pool_allocates():
    assert KVPool.page_bytes(SPECS) == PAGE_BYTES
    assert KVPool(SPECS, 7).n_bytes == 7 * PAGE_BYTES


@pytest.mark.parametrize(
    ("context", "available_pages", "pages"),
    [
        (100, 1000, 16),  # four sequences of four pages
        (96, 1000, 12),
        (100, 20, 10),  # half of what is available
        (100, 7, 4),  # one sequence always gets its room if the machine has it at all
        (100, 4, 4),
    ],
)
def test_pages(context: int, available_pages: int, pages: int):
    assert pool_pages(SPECS, context, parallel=4, available=available_pages * PAGE_BYTES) == pages


def test_a_context_beyond_the_machine_is_refused_with_numbers():
    with pytest.raises(ResourceError, match=r"context of 100000 tokens needs .* MiB .* context=96 or less"):
        pool_pages(SPECS, 100_000, available=3 * PAGE_BYTES + 1)


def test_unknown_memory_bounds_nothing():
    assert pool_pages(SPECS, 100, parallel=2, available=0) == 8


def test_a_graph_without_attention_needs_a_page_table_all_the_same():
    assert pool_pages([], 64, parallel=2, available=10) == 4
