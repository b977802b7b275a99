"""How threads divide work, and how kernels know their number of rows.

Where a row takes long, threads help each other: each begins with its own consecutive range, which it takes a chunk at a
time from the front, and when it is done it takes chunks from the back of the others' ranges. A kernel asks like this:

    chunk, turn = chunk_of(n, bytes_per_item, nth), np.int64(0)
    while True:
        start, stop, turn = next_chunk(a.queue, n, chunk, turn, tid, nth)
        if start == stop:
            break
        ...                      # items start ... stop - 1 are this thread's, whichever thread they belonged to

`queue` is a field of its argument struct: the address of one line of memory for each thread, or 0 when nothing is to be
stolen (executor.py provides it). The first word of a line counts the chunks that were taken from that thread's range:
from the front in its low half, from the back in its high half. Both are counted by adding to the word, so that one
addition both asks and takes: the first as many additions as there are chunks succeed, all later ones fail.

A call has lines of its own, which are zero when a step begins and used in that step once. So it does not matter that
one thread may be in the next call while another is still in this one, and a thread that comes late finds nothing left.
What a row's result is does not depend on the thread that computes it.
"""

from __future__ import annotations

import numpy as np

from ..jit import device
from ..simd.atomic import draw, glance
from ..team_layout import CHUNK_BYTES, CHUNKS, QUEUE_BYTES

_BACK = np.int64(1 << 32)  # a chunk taken from the back
_FRONT_MASK = np.int64((1 << 32) - 1)
_LEAST, _MOST = (np.int64(n_bytes) for n_bytes in CHUNK_BYTES)


@device
def rows_of(a, step):  # type: ignore[no-untyped-def]
    """Rows of this operation in this step."""
    if a.on_outputs != 0:
        return step.n_outputs * a.repeat
    return step.n_tokens * a.repeat


@device
def is_few(rows, a, step):  # type: ignore[no-untyped-def]
    """Whether this product goes row by row (linear_rows) or by panels (linear_gemm): exactly one of them works."""
    return rows <= (step.n_sequences if a.limit < 0 else a.limit)


@device
def share(n, grain, tid, nth):  # type: ignore[no-untyped-def]
    """The part [start, stop) of n items that thread `tid` of `nth` does: whole grains, as even as they come."""
    grains = (n + grain - 1) // grain
    start = min(n, grains * tid // nth * grain)
    stop = min(n, grains * (tid + 1) // nth * grain)
    return start, stop


@device
def chunk_of(n, item_bytes, nth):  # type: ignore[no-untyped-def]
    """Items taken at once: a fraction of a range, not so few that taking them shows, nor so many that waiting does."""
    least, most = _LEAST // max(np.int64(1), item_bytes), _MOST // max(np.int64(1), item_bytes)
    part = ((n + nth - 1) // nth + CHUNKS - 1) // CHUNKS
    return max(np.int64(1), least, min(part, most))


@device
def next_chunk(queue, n, chunk, turn, tid, nth):  # type: ignore[no-untyped-def]
    """(start, stop, turn): items for this thread, none when start == stop. `turn`: how many ranges it found empty."""
    if nth == 1 or queue == 0:
        start, stop = share(n, np.int64(1), tid, nth)
        return (start, stop, turn + 1) if turn == 0 else (stop, stop, turn)
    while turn < nth:
        owner = (tid + turn) % nth
        first, last = share(n, np.int64(1), owner, nth)
        chunks = (last - first + chunk - 1) // chunk
        word = queue + np.uint64(QUEUE_BYTES * owner)
        # Others' words are looked at first: most are empty by then, and an addition would take the line from its owner.
        if turn == 0 or _taken(glance(word)) < chunks:
            before = draw(word, np.int64(1) if turn == 0 else _BACK)
            if _taken(before) < chunks:
                number = before & _FRONT_MASK if turn == 0 else chunks - 1 - (before >> 32)
                start = first + number * chunk
                return start, min(last, start + chunk), turn
        turn += 1
    return n, n, turn


@device
def _taken(word):  # type: ignore[no-untyped-def]
    return (word & _FRONT_MASK) + (word >> 32)


@device
def next_item(queue, item, tid, nth):  # type: ignore[no-untyped-def]
    """For few large items of unequal size: the number of this thread's next one after `item` (-1 before the first).

    In order of their numbers, whoever is free. Without a queue they are dealt out to and fro (0 1 2 2 1 0 0 1 2).
    """
    if item < 0:
        return np.int64(tid)
    if nth == 1 or queue == 0:
        turn = item // nth + 1
        return turn * nth + (tid if turn % 2 == 0 else nth - 1 - tid)
    return nth + draw(queue, np.int64(1))
