"""How much context fits: the size of the key/value pool, computed by the same numbers that allocate it."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import DTypeLike

from ...formats.errors import ResourceError
from ..cache.kv import KVPool
from ..graph.ir import KVSpec
from ..step import PAGE
from ..topology import Memory, memory

PARALLEL = 4  # sequences of full length the pool has room for; any number of shorter ones share the same pages
POOL_SHARE = 0.5  # of the memory available at load: the weights and the rest of the machine need room too


def pool_pages(
    specs: Sequence[KVSpec],
    context: int,
    *,
    dtype: DTypeLike,
    parallel: int = PARALLEL,
    available: int | None = None,
) -> int:
    """Pages for `parallel` sequences of `context` tokens, fewer when memory is short, but never less than one sequence.

    The pages are only reserved: the operating system commits them as they are first written. Raises ResourceError when
    not even one sequence fits into the memory of the machine. `dtype` is how the backend stores keys and values;
    `available` is in bytes and is measured when not given.
    """
    ram = memory() if available is None else Memory(available, available)
    one, page_bytes = -(-context // PAGE), KVPool.page_bytes(specs, dtype)
    if not page_bytes or not ram.total:
        return one * parallel
    if one * page_bytes > ram.total:
        fitting = max(0, ram.total // page_bytes * PAGE)
        raise ResourceError(
            f"a context of {context} tokens needs {_mib(one * page_bytes)} for keys and values, this machine has "
            f"{_mib(ram.total)}; load the model with context={fitting} or less"
        )
    return max(one, min(one * parallel, int(ram.available * POOL_SHARE) // page_bytes))


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 20):,.0f} MiB"
