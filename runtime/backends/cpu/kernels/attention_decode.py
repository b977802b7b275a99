"""Attention of single tokens, split over their contexts: few heads keep many threads busy.

The pages that a token sees are cut into parts, each with a state of its own, and the states are merged in order. Where
the parts are depends on the token's position alone, and one thread that does them all merges likewise: so a result has
the same bits with any number of threads, and in any company.
"""

from __future__ import annotations

import numpy as np

from ..args import MOST_PARTS, PART_PAGES, SPLIT_TOKENS
from ..jit import Kernel, device, kernel_family
from ..simd.atomic import atomic_add
from ..simd.table import exp_negative, f32_view, load, load_i32, splat, store, times
from .attention import attend_to, finish, line, pages_seen
from .linear.packets import quantize_at
from .pages import PAGE_TYPES
from .share import next_item


@device
def _part_of(begin, end, part):  # type: ignore[no-untyped-def]
    """First and end of the pages of a part, of pages begin ... end - 1; and how many parts there are."""
    size = max(PART_PAGES, (end - begin + MOST_PARTS - 1) // MOST_PARTS)
    first = begin + part * size
    return first, min(end, first + size), (end - begin + size - 1) // size


@device
def _places(at, rows, width):  # type: ignore[no-untyped-def]
    """Results [rows, width], sums [rows, 16] and maxima [rows] of a state in one piece of memory."""
    sums = at + np.uint64(4 * rows * width)
    return at, sums, sums + np.uint64(64 * rows)


@device
def _merge(into, state, rows, width, is_first):  # type: ignore[no-untyped-def]
    """Add the state of further pages to the state of those before; the first one is copied."""
    old, new = f32_view(into[2], rows), f32_view(state[2], rows)
    for r in range(rows):
        top = new[r] if is_first else max(old[r], new[r])
        keep, add = exp_negative(splat(old[r] - top)), exp_negative(splat(new[r] - top))
        for c in range(0, width + 16, 16):
            is_sum = c == width
            at, source = (
                (into[1] + np.uint64(64 * r), state[1] + np.uint64(64 * r)) if is_sum
                else (into[0] + np.uint64(4 * (r * width + c)), state[0] + np.uint64(4 * (r * width + c)))
            )  # fmt: skip
            store(at, load(source) if is_first else times(load(at), keep) + times(load(source), add))
        old[r] = top


@device
def _quantize(a, result, token, head, rows, width):  # type: ignore[no-untyped-def]
    """The rows of a token and key/value head as int8, from where `finish` left them."""
    groups = a.value_dim // 32
    for m in range(rows):
        row = token * a.n_head + head * rows + m
        source = a.out + np.uint64(4 * row * a.value_dim) if a.out != 0 else result + np.uint64(4 * m * width)
        for i in range(groups):
            quantize_at(source + np.uint64(128 * i), row * groups + i, a.n_head * groups, a.packets)


@kernel_family("attention_decode")
def attention_decode(variant: str) -> Kernel:
    """As `attention`, for steps in which each token is its own tile. The result is written as float32, as int8 (when
    each head is whole groups of 32), or both.

    The variant is the number of rows that the kernel is made for, 0 is any, and the type of pages: see `decode_kernel`.
    `partials` has room for the states of SPLIT_TOKENS tokens, MOST_PARTS for each of their heads; `counters` counts the
    parts that are done, and is zero at first. Whoever does the last part of a head merges them all. More tokens are
    work enough for all threads: then whoever takes a head does all of its parts.
    """
    few, _, pages = variant.partition(".")
    attend = attend_to(int(few), PAGE_TYPES[pages])

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        rows, width = a.n_head // a.n_head_kv, (a.value_dim + 15) // 16 * 16
        scratch = step.scratch + np.uint64(tid * step.scratch_bytes)
        state_bytes = np.uint64(4 * rows * (width + 17) + 60) // np.uint64(64) * np.uint64(64)
        merged = _places(line(scratch), rows, width)
        own = line(scratch) + state_bytes
        split = step.n_tokens <= SPLIT_TOKENS and nth > 1
        item, mine = np.int64(0), next_item(a.queue, np.int64(-1), tid, nth)
        for t in range(step.n_tokens):
            begin, end = pages_seen(a, step, t, np.int64(1))
            parts = _part_of(begin, end, np.int64(0))[2]
            apart = split and parts > 1
            for head in range(a.n_head_kv):
                for k in range(parts if split else 1):
                    if item == mine:
                        if load_i32(step.cancel) != 0:
                            return
                        place = t * a.n_head_kv + head
                        states = a.partials + np.uint64(place * MOST_PARTS) * state_bytes
                        for part in range(k, k + 1 if split else parts):
                            first, stop, _ = _part_of(begin, end, part)
                            state = attend(a, step, own, t, np.int64(1), head, first, stop, np.int64(0))
                            into = _places(states + np.uint64(part) * state_bytes, rows, width) if apart else merged
                            _merge(into, state, rows, width, apart or part == 0)
                        is_last = True
                        if apart:
                            is_last = atomic_add(a.counters + np.uint64(8 * place), np.int64(1)) == parts - 1
                            for part in range(parts if is_last else 0):
                                state = _places(states + np.uint64(part) * state_bytes, rows, width)
                                _merge(merged, state, rows, width, part == 0)
                        if is_last:
                            finish(a, merged, t, np.int64(1), head)
                            if a.packets != 0:
                                _quantize(a, merged[0], t, head, rows, width)
                        mine = next_item(a.queue, mine, tid, nth)
                    item += 1

    return run
