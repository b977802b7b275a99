"""Causal attention of prompts in tile registers (AMX) on float16 pages, with an online softmax over blocks of 128 keys.

A work item is a tile of consecutive tokens of one sequence and one key/value head: all query heads that share that
head, as rows (token, query head). Its keys and values become tiles once for all its rows; 32 rows at a time then
multiply, mask, soften and multiply again. What a row's result is depends on its own keys only: blocks lie at fixed
positions, and a block that a row cannot see changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..args import PROMPT_ROWS
from ..jit import Kernel, device, inlined, kernel_family
from ..simd import tiles
from ..simd.table import i32_view, load, load_i32, splat, store, sum_of
from .attention import LOWEST, fill, first_seen, line, tile_end
from .attention_block import (
    BLOCK,
    KEY_TILES,
    correct_rows,
    keys_to_tiles,
    mask_row,
    query_to_lines,
    soften_rows,
    values_to_tiles,
)
from .pages import PAGE
from .share import next_item
from .tile_product import EXACT, ONE_PASS, tile_product

_scores = tile_product(2, 2, EXACT)
_TILE, _LINE = np.int64(tiles.BYTES), np.int64(tiles.LINE)
_SCORES_BYTES = tiles.BYTES * KEY_TILES  # of 16 rows
_WEIGHTS_BYTES = tiles.BYTES * (BLOCK // 32)  # of 16 rows, one part


@device
def _pack_queries(a, queries, first, n_rows, head, group):  # type: ignore[no-untyped-def]
    """Query rows as left operands, low parts after the high ones of PROMPT_ROWS rows; rows past the end are zero."""
    row_tile = _TILE * (a.key_dim // 32)
    low = np.uint64(row_tile * (PROMPT_ROWS // 16))
    padded = (n_rows + 31) // 32 * 32
    for m in range(padded):
        at = queries + np.uint64(m // 16 * row_tile + m % 16 * _LINE)
        row = (first + min(m, n_rows - 1) // group) * a.n_head + head * group + min(m, n_rows - 1) % group
        scale = a.scale if m < n_rows else np.float32(0.0)
        query_to_lines((a.q + np.uint64(4 * row * a.key_dim), at, at + low), a.key_dim, scale)


def _block_packer(exact: bool) -> Any:
    unpack_values = values_to_tiles(exact)

    @device
    def pack(a, step, keys, values, sequence, head, begin, stop):  # type: ignore[no-untyped-def]
        """Keys and values at positions [begin, stop), BLOCK at most, as right operands; low parts come last."""
        pages = i32_view(step.pages, step.n_sequences * step.pages_per_sequence)
        key_bytes, value_bytes = np.uint64(2 * BLOCK * a.key_dim), np.uint64(2 * BLOCK * a.value_dim)
        for i in range(BLOCK // PAGE):
            place = begin // PAGE + i
            page = np.int64(-1)
            if begin + i * PAGE < stop:
                page = np.int64(pages[sequence * step.pages_per_sequence + place])
            used = max(np.int64(0), min(np.int64(PAGE), stop - begin - i * PAGE)) if page >= 0 else np.int64(0)
            source = max(page, np.int64(0)) * a.n_head_kv + head  # of a page that is not there nothing is used
            to = keys + np.uint64(2 * i * (a.key_dim // 32) * _TILE)
            if used > 0:
                keys_to_tiles((a.keys + np.uint64(2 * source * a.key_dim * PAGE), to, to + key_bytes), a.key_dim)
            to = values + np.uint64(i * _TILE)
            page_at = a.values + np.uint64(2 * source * a.value_dim * PAGE)
            unpack_values((page_at, to, to + value_bytes), a.value_dim, used)

    return pack


@device
def _finish(a, results, sums, first, n_rows, head, group):  # type: ignore[no-untyped-def]
    """Divide by the sums and put the rows where they belong."""
    row_tile = _TILE * (a.value_dim // 16)
    for m in range(n_rows):
        factor = splat(np.float32(1.0) / sum_of(load(sums + np.uint64(64 * m))))
        row = (first + m // group) * a.n_head + head * group + m % group
        target = a.out + np.uint64(4 * row * a.value_dim)
        source = results + np.uint64(m // 16 * row_tile + m % 16 * _LINE)
        for c in range(a.value_dim // 16):
            store(target + np.uint64(_LINE * c), load(source + np.uint64(_TILE * c)) * factor)


def _attend(exact: bool) -> Any:
    """f(args, step, scratch, first token, tokens, head): one work item."""
    passes = EXACT if exact else ONE_PASS
    pack_block, soften = _block_packer(exact), soften_rows(exact)
    results_product, last_product = tile_product(2, 2, passes), tile_product(2, 1, passes)

    @inlined
    def attend(a, step, scratch, first, n_tokens, head):  # type: ignore[no-untyped-def]
        """One work item."""
        group = a.n_head // a.n_head_kv
        n_rows = n_tokens * group
        padded = (n_rows + 31) // 32 * 32
        key_tiles, value_tiles = a.key_dim // 32, a.value_dim // 16
        # Private memory; `prompt_attention_bytes` counts it.
        queries = line(scratch)
        results = queries + np.uint64(4 * PROMPT_ROWS * a.key_dim)
        keys = results + np.uint64(4 * PROMPT_ROWS * a.value_dim)
        values = keys + np.uint64(4 * BLOCK * a.key_dim)
        scores = values + np.uint64(4 * BLOCK * a.value_dim)
        weights = scores + np.uint64(2 * _SCORES_BYTES)
        sums = weights + np.uint64(4 * _WEIGHTS_BYTES)
        maxima = sums + np.uint64(64 * PROMPT_ROWS)
        corrections = maxima + np.uint64(4 * PROMPT_ROWS)
        low_queries = np.uint64(2 * PROMPT_ROWS * a.key_dim)
        low_keys, low_values = np.uint64(2 * BLOCK * a.key_dim), np.uint64(2 * BLOCK * a.value_dim)
        low_weights = np.uint64(2 * _WEIGHTS_BYTES)

        _pack_queries(a, queries, first, n_rows, head, group)
        fill(results, padded * a.value_dim, np.float32(0.0))
        fill(sums, padded * 16, np.float32(0.0))
        fill(maxima, padded, LOWEST)
        position = np.int64(i32_view(step.positions, step.n_tokens)[first])
        sequence = np.int64(i32_view(step.sequence, step.n_tokens)[first])
        last = position + n_tokens - 1
        scores_strides = (_TILE * key_tiles, _TILE * key_tiles, np.int64(_SCORES_BYTES), _TILE)
        results_strides = (np.int64(_WEIGHTS_BYTES), np.int64(_WEIGHTS_BYTES), _TILE * value_tiles, _TILE)
        for block in range(first_seen(position, a.window) // BLOCK, last // BLOCK + 1):
            begin = block * BLOCK
            pack_block(a, step, keys, values, sequence, head, begin, min(begin + BLOCK, last + 1))
            for m in range(0, padded, 32):
                low, high = position + m // group, position + (min(m + 32, n_rows) - 1) // group
                # Keys that some row sees.
                k0, k1 = max(0, first_seen(low, a.window) - begin), min(BLOCK, high + 1 - begin)
                if k0 >= k1:
                    continue
                mine = queries + np.uint64(m // 16 * key_tiles * _TILE)
                for k in range(0, KEY_TILES, 2):
                    theirs = keys + np.uint64(k * key_tiles * _TILE)
                    _scores(
                        (mine, mine + low_queries), (theirs, theirs + low_keys), scores + np.uint64(k * _TILE),
                        scores_strides, key_tiles, np.int64(1),
                    )  # fmt: skip
                if a.softcap > np.float32(0.0) or begin + BLOCK - 1 > low or begin < first_seen(high, a.window):
                    for r in range(32):
                        seen = position + min(m + r, n_rows - 1) // group
                        mask_row(
                            scores + np.uint64(r // 16 * _SCORES_BYTES + r % 16 * _LINE),
                            first_seen(seen, a.window) - begin, seen + 1 - begin, a.softcap,
                        )  # fmt: skip
                here = results + np.uint64(m // 16 * value_tiles * _TILE)
                for half in range(2):
                    row, part = m + 16 * half, weights + np.uint64(half * _WEIGHTS_BYTES)
                    row_maxima, row_sums = maxima + np.uint64(4 * row), sums + np.uint64(64 * row)
                    row_scores = scores + np.uint64(half * _SCORES_BYTES)
                    if soften((row_scores, row_maxima, row_sums, corrections, part, part + low_weights)) != 0:
                        correct_rows(here + np.uint64(half * value_tiles * _TILE), value_tiles, corrections)
                for c in range(0, value_tiles, 2):
                    theirs = values + np.uint64(c * _WEIGHTS_BYTES)
                    mine, to = weights, here + np.uint64(c * _TILE)
                    if c + 1 < value_tiles:
                        results_product(
                            (mine, mine + low_weights), (theirs, theirs + low_values), to, results_strides,
                            np.int64(BLOCK // 32), np.int64(0),
                        )  # fmt: skip
                    else:
                        last_product(
                            (mine, mine + low_weights), (theirs, theirs + low_values), to, results_strides,
                            np.int64(BLOCK // 32), np.int64(0),
                        )  # fmt: skip
        _finish(a, results, sums, first, n_rows, head, group)

    return attend


@kernel_family("attention_blocks")
def attention_blocks(variant: str) -> Kernel:
    """out[T, n_head * value_dim]: the tokens of the step over all they may see; `kv_store` has stored their own keys.

    key_dim is a multiple of 32 and value_dim one of 16. Threads take work items as they come: later tiles of a prompt
    see more blocks. Variant "exact" rounds nothing to bfloat16, "fast" weights and values.
    """
    attend = _attend(variant == "exact")

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        most = max(1, PROMPT_ROWS // (a.n_head // a.n_head_kv))
        scratch = line(step.scratch + np.uint64(tid * step.scratch_bytes))
        tiles.configure(scratch)
        item, first, mine = np.int64(0), np.int64(0), next_item(a.queue, np.int64(-1), tid, nth)
        while first < step.n_tokens:
            end = tile_end(step, first, most)
            for head in range(a.n_head_kv):
                if item == mine:
                    if load_i32(step.cancel) != 0:
                        tiles.release(0)
                        return
                    attend(a, step, scratch, first, end - first, head)
                    mine = next_item(a.queue, mine, tid, nth)
                item += 1
            first = end
        tiles.release(0)

    return run
