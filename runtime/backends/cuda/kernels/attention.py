"""Attention over pages of keys and values, with an online softmax. The definition: runtime/ops/attention.py.

A warp takes a tile of query rows (token, query head) that share a key/value head, and a part of the pages that they
see: a lane is a key of a page while scores are made, and a column of its values afterwards. What a warp knows after its
part (a maximum, a sum, results not yet divided) is written down; `merge` makes the result of all parts. Prompts have
one part and many tiles, generated tokens one tile and many parts.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from ....step import PAGE
from ..package import cuda
from ..simt import WARPS, meet, warp_max, warp_sum
from .quantize import put
from .rope import rotated

# The maximum of nothing: finite, so that e^(minus infinity - it) is zero and not NaN.
LOWEST = np.float32(-1.0e38)


@cuda.jit
def kv_store(k, v, keys, values, heads, key_dim, value_dim, positions, sequence, pages, per_sequence, m):  # type: ignore[no-untyped-def]
    """Token t at position p goes to slot p % 32 of page pages[sequence, p // 32]; a block for each token and head."""
    for item in range(cuda.blockIdx.x, m * heads, cuda.gridDim.x):
        t, head = item // heads, item % heads
        position = np.int64(positions[t])
        page = np.int64(pages[sequence[t] * per_sequence + position // PAGE])
        if page >= 0:
            slot, tile = position % PAGE, page * heads + head
            for i in range(cuda.threadIdx.x, key_dim, cuda.blockDim.x):
                keys[(tile * key_dim + i) * PAGE + slot] = k[item * key_dim + i]
            for i in range(cuda.threadIdx.x, value_dim, cuda.blockDim.x):
                values[(tile * PAGE + slot) * value_dim + i] = v[item * value_dim + i]


@cuda.jit
def rotate_and_store(  # type: ignore[no-untyped-def]
    q, k, v, turned, keys, values, n_head, heads, key_dim, value_dim, inv_freq, mscale, n_rot, neox, positions,
    sequence, pages, per_sequence, m,
):  # fmt: skip
    """`rope` of queries, to `turned`, and of keys, which `kv_store` then takes; a block for each token and head."""
    for item in range(cuda.blockIdx.x, m * (n_head + heads), cuda.gridDim.x):
        t, head = item // (n_head + heads), item % (n_head + heads)
        position = np.int64(positions[t])
        angle = np.float32(positions[t])
        if head < n_head:
            at = (t * n_head + head) * key_dim
            for i in range(cuda.threadIdx.x, key_dim, cuda.blockDim.x):
                turned[at + i] = rotated(q, at, i, angle, inv_freq, mscale, n_rot, neox)
            continue
        head -= n_head
        page = np.int64(pages[sequence[t] * per_sequence + position // PAGE])
        if page >= 0:
            slot, tile, own = position % PAGE, page * heads + head, t * heads + head
            for i in range(cuda.threadIdx.x, key_dim, cuda.blockDim.x):
                key = rotated(k, own * key_dim, i, angle, inv_freq, mscale, n_rot, neox)
                keys[(tile * key_dim + i) * PAGE + slot] = key
            for i in range(cuda.threadIdx.x, value_dim, cuda.blockDim.x):
                values[(tile * PAGE + slot) * value_dim + i] = v[own * value_dim + i]


@cache
def attention(rows: int, key_dim: int, value_dim: int) -> Any:
    """A warp takes up to `rows` rows of a tile, which has `slices` times as many.

    tiles int32 [.., 3]: consecutive tokens of one sequence: the first, how many, and the last position that all of them
    see (-1 where attention is causal). states float32 [parts, n_rows, value_dim + 2]: results, then sum and maximum,
    for `merge`.
    """
    vectors = -(-value_dim // 32)

    @cuda.jit
    def attend(  # type: ignore[no-untyped-def]
        q, keys, values, states, tiles, first_tile, n_tiles, slices, parts, n_head, n_head_kv, scale, softcap, window,
        positions, sequence, pages, per_sequence, n_rows,
    ):  # fmt: skip
        weights = cuda.shared.array((WARPS, rows, PAGE), np.float32)
        acc = cuda.local.array((rows, vectors), np.float32)
        most = cuda.local.array(rows, np.float32)
        total = cuda.local.array(rows, np.float32)
        score = cuda.local.array(rows, np.float32)
        lane, warp, group = cuda.threadIdx.x, cuda.threadIdx.y, n_head // n_head_kv
        begin, step = cuda.blockIdx.x * cuda.blockDim.y + warp, cuda.gridDim.x * cuda.blockDim.y
        row_before = np.int64(tiles[3 * first_tile]) * n_head  # rows of `states` count from that of the first tile
        for item in range(begin, n_tiles * n_head_kv * slices * parts, step):
            part, rest = item % parts, item // parts
            own_slice, rest = rest % slices, rest // slices
            tile, head = first_tile + rest // n_head_kv, rest % n_head_kv
            first, count, whole = np.int64(tiles[3 * tile]), np.int64(tiles[3 * tile + 1]), tiles[3 * tile + 2]
            skipped, used = own_slice * rows, count * group  # rows of the tile: others have taken, and there are
            position = np.int64(positions[first])
            last = max(position + count - 1, np.int64(whole))  # the last position that any of the rows sees
            low = max(np.int64(0), position - window + 1) // PAGE if window > 0 else np.int64(0)
            per_part = (last // PAGE + 1 - low + parts - 1) // parts
            for r in range(rows):
                most[r] = LOWEST
                total[r] = np.float32(0.0)
                for c in range(vectors):
                    acc[r, c] = np.float32(0.0)
            for number in range(low + part * per_part, min(low + (part + 1) * per_part, last // PAGE + 1)):
                page = np.int64(pages[sequence[first] * per_sequence + number])
                if page < 0:
                    continue
                at = (page * n_head_kv + head) * key_dim * PAGE + lane
                for r in range(rows):
                    score[r] = np.float32(0.0)
                for i in range(key_dim):
                    key = np.float32(keys[at + i * PAGE])
                    for r in range(rows):
                        mine = min(skipped + r, used - 1)
                        row = (first + mine // group) * n_head + head * group + mine % group
                        score[r] += key * q[row * key_dim + i]
                key_at = number * PAGE + lane
                meet()  # weights of the page before have been read
                for r in range(rows):
                    own = position + min(skipped + r, used - 1) // group
                    seen = key_at <= max(own, np.int64(whole))
                    if window > 0:
                        seen = seen and key_at > own - window
                    value = score[r] * scale
                    if softcap > np.float32(0.0):
                        value = softcap * np.float32(math.tanh(value / softcap))
                    largest = max(most[r], warp_max(value if seen else LOWEST))
                    weight = np.float32(math.exp(value - largest)) if seen else np.float32(0.0)
                    correction = np.float32(math.exp(most[r] - largest))
                    weights[warp, r, lane] = weight
                    most[r] = largest
                    total[r] = total[r] * correction + warp_sum(weight)
                    for c in range(vectors):
                        acc[r, c] *= correction
                meet()
                at = (page * n_head_kv + head) * PAGE * value_dim
                for k in range(min(np.int64(PAGE), last + 1 - number * PAGE)):
                    for c in range(vectors):
                        value = np.float32(values[at + k * value_dim + min(32 * c + lane, value_dim - 1)])
                        for r in range(rows):
                            acc[r, c] += weights[warp, r, k] * value
            for r in range(rows):  # a constant, so that all states stay in registers
                mine = skipped + r
                if mine < used:
                    row = (first + mine // group) * n_head + head * group + mine % group - row_before
                    at = (part * n_rows + row) * (value_dim + 2)
                    for c in range(vectors):
                        if 32 * c + lane < value_dim:
                            states[at + 32 * c + lane] = acc[r, c]
                    if lane == 0:
                        states[at + value_dim] = total[r]
                        states[at + value_dim + 1] = most[r]

    return attend


@cuda.jit(device=True)
def _weigh(states, parts, value_dim, row, n_rows):  # type: ignore[no-untyped-def]
    """(the largest maximum of all parts, and the sum of all of their weights) for a row."""
    width = value_dim + 2
    most = LOWEST
    for part in range(parts):
        most = max(most, states[(part * n_rows + row) * width + value_dim + 1])
    total = np.float32(0.0)
    for part in range(parts):
        at = (part * n_rows + row) * width + value_dim
        total += states[at] * np.float32(math.exp(states[at + 1] - most))
    return most, total


@cuda.jit(device=True)
def _joined(states, parts, value_dim, row, n_rows, c, most, total):  # type: ignore[no-untyped-def]
    """Column c of a row, of all parts."""
    value = np.float32(0.0)
    for part in range(parts):
        at = (part * n_rows + row) * (value_dim + 2)
        value += states[at + c] * np.float32(math.exp(states[at + value_dim + 1] - most))
    return value / total


@cuda.jit
def merge(states, parts, value_dim, first_row, n_rows, out):  # type: ignore[no-untyped-def]
    """Rows first_row ... of out, float32 [.., value_dim], from the states of all parts; a block for each row."""
    for row in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
        most, total = _weigh(states, parts, value_dim, row, n_rows)
        for c in range(cuda.threadIdx.x, value_dim, cuda.blockDim.x):
            value = _joined(states, parts, value_dim, row, n_rows, c, most, total)
            out[(first_row + row) * value_dim + c] = value


@cuda.jit
def merge_quantized(  # type: ignore[no-untyped-def]
    states, parts, value_dim, first_row, n_rows, n_head, codes, scale, sums
):
    """The same as int8 (quantize.py), for heads of whole groups; a warp for each row."""
    own = value_dim // 32
    for row in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
        most, total = _weigh(states, parts, value_dim, row, n_rows)
        token, head = (first_row + row) // n_head, (first_row + row) % n_head
        for group in range(own):
            c = 32 * group + cuda.threadIdx.x
            value = _joined(states, parts, value_dim, row, n_rows, c, most, total)
            put(value, token, n_head * own, head * own + group, codes, scale, sums)
