"""Attention over the pages of the cache, causal or over whole texts, with an online softmax.

A work item is a tile of consecutive tokens of one sequence and one key/value head: all query heads that share that
head, as rows (token, query head). The tile walks the pages of its sequence once; a panel of rows that cannot see a
page skips it, and masks are applied on border pages only. Scores, results and widened pages stay in the thread's
private memory. Such a state (results not yet divided, their sums in sixteen parts, maxima) is all that is known of the
pages seen so far.

A token sees max(own position + 1, common) positions. `common` is 0 where attention is causal, and the length of the
text where each token sees all of it.

`python -m benchmarks.kernels` measures it alone, `halfbyte bench --profile` in a model.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..args import PANEL, TILE_ROWS
from ..jit import Kernel, device, inlined, kernel_family
from ..simd.table import f32_view, i32_view, load, load_i32, splat, store, sum_of, times
from .attention_tiles import cap_scores, hide, products, soften
from .pages import F32_PAGES, PAGE, PAGE_TYPES, PageType
from .share import next_item

# The maximum of nothing: finite, also times log2(e), so that minus infinity minus it is not NaN.
LOWEST = np.float32(-1.0e38)


@device
def line(at):  # type: ignore[no-untyped-def]
    """The next cache line."""
    return (at + np.uint64(63)) // np.uint64(64) * np.uint64(64)


@device
def fill(at, n, value):  # type: ignore[no-untyped-def]
    numbers = f32_view(at, n)
    for i in range(n):
        numbers[i] = value


def _widened(page: PageType) -> Any:
    size, load_some, load_one = page.size, page.load, page.load_one

    @device
    def widen(numbers, wide, lines, columns, width):  # type: ignore[no-untyped-def]
        """[lines, columns] of a page -> float32 [lines, width], zero behind the last column."""
        whole = columns // 16 * 16
        for i in range(lines):
            source, target = numbers + np.uint64(size * i * columns), wide + np.uint64(4 * i * width)
            for c in range(0, whole, 16):
                store(target + np.uint64(4 * c), load_some(source + np.uint64(size * c)))
            rest = f32_view(target, width)
            for c in range(whole, width):
                rest[c] = load_one(source + np.uint64(size * c)) if c < columns else np.float32(0.0)

    @device
    def widened(a, keys, values, spare, lines):  # type: ignore[no-untyped-def]
        """A page as float32 in private memory, of the values only `lines` lines; and the bytes of a line of values."""
        wide_values, width = spare + np.uint64(4 * PAGE * a.key_dim), (a.value_dim + 15) // 16 * 16
        widen(keys, spare, a.key_dim, np.int64(PAGE), np.int64(PAGE))
        widen(values, wide_values, lines, a.value_dim, width)
        return spare, wide_values, np.uint64(4 * width)

    return widened


def _in_place(page: PageType) -> Any:
    size = page.size

    @device
    def in_place(a, keys, values, spare, lines):  # type: ignore[no-untyped-def]
        """A page as it lies in the cache."""
        return keys, values, np.uint64(size * a.value_dim)

    return in_place


@device
def _pack_queries(a, q, at, first, n_rows, rows, head, group):  # type: ignore[no-untyped-def]
    """Query rows of a tile, times `scale`, as panels [key_dim, rows]; rows past the end are zero."""
    for m in range((n_rows + rows - 1) // rows * rows):
        panel = f32_view(at + np.uint64(4 * (m // rows) * rows * a.key_dim), rows * a.key_dim)
        place = m % rows
        if m < n_rows:
            row = (first + m // group) * a.n_head + head * group + m % group
            source = f32_view(q + np.uint64(4 * row * a.key_dim), a.key_dim)
            for i in range(a.key_dim):
                panel[i * rows + place] = source[i] * a.scale
        else:
            for i in range(a.key_dim):
                panel[i * rows + place] = np.float32(0.0)


@device
def finish(a, state, first, n_tokens, head):  # type: ignore[no-untyped-def]
    """Divide by the sums and put the rows where they belong; where there is no such place, they stay in the state."""
    out, sums, group, width = state[0], state[1], a.n_head // a.n_head_kv, (a.value_dim + 15) // 16 * 16
    n_rows = n_tokens * group
    for m in range(n_rows):
        factor = np.float32(1.0) / sum_of(load(sums + np.uint64(64 * m)))
        row = (first + m // group) * a.n_head + head * group + m % group
        source = out + np.uint64(4 * m * width)
        target = a.out + np.uint64(4 * row * a.value_dim) if a.out != 0 else source
        whole, scale = a.value_dim // 16 * 16, splat(factor)
        for c in range(0, whole, 16):
            store(target + np.uint64(4 * c), times(load(source + np.uint64(4 * c)), scale))
        rest, result = f32_view(source, width), f32_view(target, a.value_dim)
        for c in range(whole, a.value_dim):
            result[c] = rest[c] * factor


@device
def pages_seen(a, step, first, n_tokens):  # type: ignore[no-untyped-def]
    """First and end of the pages of its sequence that a tile of tokens looks at."""
    position = np.int64(i32_view(step.positions, step.n_tokens)[first])
    return first_seen(position, a.window) // PAGE, (position + n_tokens - 1) // PAGE + 1


@device
def seen_by_all(a, step, first):  # type: ignore[no-untyped-def]
    """How many positions every token of the sequence of token `first` sees: none where attention is causal."""
    if a.whole == 0:
        return np.int64(0)
    positions, sequence = i32_view(step.positions, step.n_tokens), i32_view(step.sequence, step.n_tokens)
    last = first
    while last + 1 < step.n_tokens and sequence[last + 1] == sequence[first]:
        last += 1
    return np.int64(positions[last]) + 1


@device
def first_seen(position, window):  # type: ignore[no-untyped-def]
    return max(0, position - window + 1) if window > 0 else 0


def attend_to(few: int, page_type: PageType) -> Any:
    """f(args, step, scratch, first token, tokens, head, first page, end of pages, common) -> State: one work item.

    few: for so many rows at most, which read pages in place; their values are whole vectors. 0: for any number of rows
    and any width. Pages are widened first, which pays for more than PANEL rows.
    """
    rows, size = few or PANEL, page_type.size
    keys_product, values_product = products(rows, page_type if few else F32_PAGES, fetches=few > 0)
    page_of = _in_place(page_type) if few else _widened(page_type)

    @inlined
    def attend(a, step, scratch, first, n_tokens, head, begin_page, end_page, common):  # type: ignore[no-untyped-def]
        group = a.n_head // a.n_head_kv
        n_rows = n_tokens * group
        padded = (n_rows + PANEL - 1) // PANEL * PANEL
        width = (a.value_dim + 15) // 16 * 16
        # Private memory; `scratch_bytes` counts it.
        queries = line(scratch)
        out = line(queries + np.uint64(4 * padded * a.key_dim))
        sums = line(out + np.uint64(4 * padded * width))
        maxima = line(sums + np.uint64(64 * padded))
        panel = line(maxima + np.uint64(4 * padded))
        corrections = panel + np.uint64(4 * PANEL * PAGE)
        spare = line(corrections + np.uint64(4 * PANEL))

        _pack_queries(a, a.q, queries, first, n_rows, rows, head, group)
        fill(out, padded * width, np.float32(0.0))
        fill(sums, padded * 16, np.float32(0.0))
        fill(maxima, padded, LOWEST)

        position = np.int64(i32_view(step.positions, step.n_tokens)[first])
        sequence = np.int64(i32_view(step.sequence, step.n_tokens)[first])
        pages = i32_view(step.pages, step.n_sequences * step.pages_per_sequence)
        last = max(position + n_tokens, common) - 1
        for number in range(begin_page, end_page):
            page = np.int64(pages[sequence * step.pages_per_sequence + number])
            if page < 0:
                continue
            begin = number * PAGE
            keys = a.keys + np.uint64(size * (page * a.n_head_kv + head) * a.key_dim * PAGE)
            values = a.values + np.uint64(size * (page * a.n_head_kv + head) * a.value_dim * PAGE)
            ahead = np.int64(pages[sequence * step.pages_per_sequence + min(number + 1, last // PAGE)])
            next_keys = a.keys + np.uint64(size * (ahead * a.n_head_kv + head) * a.key_dim * PAGE)
            next_values = a.values + np.uint64(size * (ahead * a.n_head_kv + head) * a.value_dim * PAGE)
            keys, values, value_stride = page_of(a, keys, values, spare, min(np.int64(PAGE), last + 1 - begin))
            for m in range(0, n_rows, rows):
                used = min(rows, n_rows - m)
                low, high = position + m // group, position + (m + used - 1) // group  # positions of the panel's rows
                # Keys that some row sees.
                k0, k1 = max(0, first_seen(low, a.window) - begin), min(PAGE, max(high + 1, common) - begin)
                if k0 >= k1:
                    continue
                scores_of = (queries + np.uint64(4 * m * a.key_dim), keys, panel, next_keys)
                keys_product(scores_of, a.key_dim)
                if a.softcap > np.float32(0.0):
                    for r in range(used):
                        cap_scores(panel + np.uint64(4 * PAGE * r), a.softcap)
                if begin + PAGE > max(low + 1, common) or begin < first_seen(high, a.window):
                    for r in range(used):
                        mine = position + (m + r) // group
                        stop = max(mine + 1, common) - begin
                        hide(panel + np.uint64(4 * PAGE * r), first_seen(mine, a.window) - begin, stop)
                soften((panel, maxima + np.uint64(4 * m), sums + np.uint64(64 * m), corrections), used)
                skip = np.uint64(k0)
                results_of = (
                    panel + np.uint64(4) * skip, values + skip * value_stride, value_stride,
                    out + np.uint64(4 * m * width), np.uint64(4 * width), corrections, next_values,
                )  # fmt: skip
                values_product(results_of, width, k1 - k0)
        return out, sums, maxima

    return attend


@device
def tile_end(step, first, most):  # type: ignore[no-untyped-def]
    """The end of a tile: consecutive positions of one sequence, at most `most` tokens."""
    positions, sequence = i32_view(step.positions, step.n_tokens), i32_view(step.sequence, step.n_tokens)
    end = first + 1
    while (
        end < min(step.n_tokens, first + most)
        and sequence[end] == sequence[first]
        and positions[end] == positions[end - 1] + 1
    ):
        end += 1
    return end


@kernel_family("attention")
def attention(variant: str) -> Kernel:
    """out[T, n_head * value_dim]: the tokens of the step over all they may see; `kv_store` has stored their own keys.

    Threads take work items as they come: later tiles of a prompt see more pages.
    """
    attend = attend_to(0, PAGE_TYPES[variant])

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        most = max(1, TILE_ROWS // (a.n_head // a.n_head_kv))
        scratch = step.scratch + np.uint64(tid * step.scratch_bytes)
        item, first, mine = np.int64(0), np.int64(0), next_item(a.queue, np.int64(-1), tid, nth)
        while first < step.n_tokens:
            end, common = tile_end(step, first, most), seen_by_all(a, step, first)
            for head in range(a.n_head_kv):
                if item == mine:
                    if load_i32(step.cancel) != 0:
                        return
                    begin_page, end_page = pages_seen(a, step, first, end - first)
                    end_page = max(end_page, (common + PAGE - 1) // PAGE)
                    state = attend(a, step, scratch, first, end - first, head, begin_page, end_page, common)
                    finish(a, state, first, end - first, head)
                    mine = next_item(a.queue, mine, tid, nth)
                item += 1
            first = end

    return run
