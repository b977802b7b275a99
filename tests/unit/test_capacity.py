"""How many pages: bounded by memory, never below one sequence, and refused with numbers when that is impossible."""

from __future__ import annotations

import numpy as np
import pytest
from halfbyte.formats.errors import ResourceError, UnsupportedError
from halfbyte.runtime.backends.cpu.lower import Lowering
from halfbyte.runtime.cache.kv import KVPool
from halfbyte.runtime.engine.capacity import pool_pages
from halfbyte.runtime.graph.ir import Graph, KVSpec, Rows, Value
from halfbyte.runtime.step import PAGE

SPECS = [KVSpec(layer=i, n_head_kv=3, key_dim=8, value_dim=16) for i in range(5)]
PAGE_BYTES = 5 * 3 * (8 + 16) * PAGE * 2


def test_a_page_costs_what_the_pool_allocates():
    assert KVPool.page_bytes(SPECS, np.float16) == PAGE_BYTES
    assert KVPool(SPECS, 7).n_bytes == 7 * PAGE_BYTES
    assert KVPool.page_bytes(SPECS, np.float32) * 7 == KVPool(SPECS, 7, np.float32).n_bytes == 14 * PAGE_BYTES


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
    available = available_pages * PAGE_BYTES
    assert pool_pages(SPECS, context, dtype=np.float16, parallel=4, available=available) == pages
    assert pool_pages(SPECS, context, dtype=np.float32, parallel=4, available=2 * available) == pages


def test_a_context_beyond_the_machine_is_refused_with_numbers():
    with pytest.raises(ResourceError, match=r"context of 100000 tokens needs .* MiB .* context=96 or less"):
        pool_pages(SPECS, 100_000, dtype=np.float16, available=3 * PAGE_BYTES + 1)


def test_unknown_memory_bounds_nothing():
    assert pool_pages(SPECS, 100, dtype=np.float16, parallel=2, available=0) == 8


def test_a_graph_without_attention_needs_a_page_table_all_the_same():
    assert pool_pages([], 64, dtype=np.float16, parallel=2, available=10) == 4


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.int8])
def test_cpu_kernels_refuse_pages_of_another_type(dtype: type):
    """They would read any bytes as float16 or float32."""
    graph = Graph((), Value(0, "logits", Rows.OUTPUTS, 8), tuple(SPECS))
    with pytest.raises(UnsupportedError, match=rf"{np.dtype(dtype)}.* float16 and float32 only"):
        Lowering(graph, KVPool(SPECS, 1, dtype), 4, prompt=False).run()
    Lowering(graph, KVPool(SPECS, 1), 4, prompt=False).run()
