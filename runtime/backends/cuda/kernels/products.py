"""What a warp multiplies: two rows of weights with a few rows of activations.

The two rows may lie anywhere, even in two matrices. Activations are loaded once for both. The lanes of a warp load the
blocks of 32 groups of 32 weights of both rows, 16 bytes a load, wherever a row begins, and put them into shared memory;
then each takes a group, while what comes next is on its way. It is unpacked to int8 in registers and multiplied with
activations of int8 (quantize.py): these products are whole numbers until they meet their scales.

Weights of 16 and 32 bits are multiplied with float32 activations; then `scale` and `sums` are not looked at, and the
"group" that a lane takes is a single weight.

What counts here is the number of instructions: indices within a row are int32, and no load looks whether an index is
negative (instructions.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .....formats.gguf.types import GGMLType
from ..package import cuda
from ..simt import (
    WARP,
    WARPS,
    device,
    dp4a,
    float_at,
    float_of,
    four,
    four_at,
    half,
    meet,
    pair_at,
    put_four,
    shared,
    short,
    warp_sum,
    word,
    wrapped,
)  # fmt: skip
from ..weights import HALVES, PLAIN, UNPACK

ROWS = 2  # of weights that a warp takes at once
LOAD = 16  # bytes


@device
def _float32(w, row, i):  # type: ignore[no-untyped-def]
    return float_of(word(w, row + 4 * i))


@device
def _float16(w, row, i):  # type: ignore[no-untyped-def]
    return half(w, row + 2 * i)


@device
def _bfloat16(w, row, i):  # type: ignore[no-untyped-def]
    return float_of(wrapped(short(w, row + 2 * i) << 16))


FLOAT_WEIGHTS: dict[str, Any] = {"F32": _float32, "F16": _float16, "BF16": _bfloat16}
FLOATS = frozenset(FLOAT_WEIGHTS)


def two_rows(name: str, tokens: int) -> Any:
    """f(w0, row0, w1, row1, row_bytes, table, x, scale, sums, first, stride, last, acc): sums over whole rows.

    Weights w0 from byte row0 on and w1 from row1 on, for tokens first + min(t, last) of activations with `stride`
    groups a row. All lanes get the sums: acc float32 [ROWS * tokens], those of the first row first.
    """
    return (_floats if name in FLOATS else _staged)(name, tokens)


def _floats(name: str, tokens: int) -> Any:
    weight = FLOAT_WEIGHTS[name]

    @cuda.jit(device=True)
    def multiply(w0, row0, w1, row1, row_bytes, table, x, scale, sums, first, stride, last, acc):  # type: ignore[no-untyped-def]
        for t in range(ROWS * tokens):
            acc[t] = np.float32(0.0)
        for i in range(np.int32(cuda.threadIdx.x), np.int32(stride), np.int32(WARP)):
            one, other = weight(w0, row0, i), weight(w1, row1, i)
            for t in range(tokens):
                value = float_at(x, np.int32((first + min(t, last)) * stride + i))
                acc[t] += one * value
                acc[tokens + t] += other * value
        for t in range(ROWS * tokens):
            acc[t] = warp_sum(acc[t])

    return multiply


def _staged(name: str, tokens: int) -> Any:
    unpack, multiply = UNPACK[name], _group(name, tokens)
    chunk = GGMLType[name].row_bytes(32 * WARP)  # of 32 groups, which are whole blocks of every type
    pieces = (chunk + 2 * (LOAD - 1)) // LOAD  # that it lies in, wherever it begins
    each, room = -(-pieces // WARP), LOAD * pieces
    stage, n_held, n_codes, n_scales = shared(WARPS * ROWS * room, np.uint8), ROWS * each * 4, ROWS * 8, ROWS * 4

    @device
    def ask(w, row, at, end, lane, held, first):  # type: ignore[no-untyped-def]
        """A lane's pieces of 16 bytes of a chunk, `at` bytes behind `row`, both multiples of 16."""
        for k in range(each):
            piece = lane + WARP * k
            if piece < pieces and np.int32(at + LOAD * piece) < end:
                found = four(w, row + at + LOAD * lane + LOAD * WARP * k)
                for i in range(4):
                    held[first + 4 * k + i] = found[i]

    @device
    def keep(buffer, own, lane, held, first):  # type: ignore[no-untyped-def]
        for k in range(each):
            piece, i = lane + WARP * k, first + 4 * k
            if piece < pieces:
                put_four(buffer, own + LOAD * piece, (held[i], held[i + 1], held[i + 2], held[i + 3]))

    @cuda.jit(device=True)
    def multiply_rows(w0, row0, w1, row1, row_bytes, table, x, scale, sums, first, stride, last, acc):  # type: ignore[no-untyped-def]
        held = cuda.local.array(n_held, np.int32)
        codes = cuda.local.array(n_codes, np.int32)
        scales = cuda.local.array(n_scales, np.float32)
        buffer, lane, groups = stage(), np.int32(cuda.threadIdx.x), np.int32(stride)
        own = np.int32(cuda.threadIdx.y * (ROWS * room))
        over0, over1 = np.int32(row0 & 15), np.int32(row1 & 15)
        end0, end1 = np.int32(over0 + row_bytes), np.int32(over1 + row_bytes)
        row0, row1 = row0 - over0, row1 - over1
        for t in range(ROWS * tokens):
            acc[t] = np.float32(0.0)
        ask(w0, row0, 0, end0, lane, held, 0)
        ask(w1, row1, 0, end1, lane, held, 4 * each)
        for begin in range(np.int32(0), groups, np.int32(WARP)):
            behind = np.int32((begin >> 5) * chunk)
            meet()  # what was there has been read
            keep(buffer, own, lane, held, 0)
            keep(buffer, own + room, lane, held, 4 * each)
            meet()
            ask(w0, row0, np.int32(over0 + behind + chunk & -16), end0, lane, held, 0)
            ask(w1, row1, np.int32(over1 + behind + chunk & -16), end1, lane, held, 4 * each)
            if np.int32(begin + lane) < groups:
                unpack(buffer, own + (over0 + (behind & 15) & 15), lane, table, codes[:8], scales[:4])
                unpack(buffer, own + room + (over1 + (behind & 15) & 15), lane, table, codes[8:], scales[4:])
                multiply(codes, scales, x, scale, sums, np.int32(begin + lane), first, stride, last, acc)
        for t in range(ROWS * tokens):
            acc[t] = warp_sum(acc[t])

    return multiply_rows


def _group(name: str, tokens: int) -> Any:
    """f(codes, scales, x, scale, sums, group, first, stride, last, acc): adds a group's products to acc."""
    has_halves, has_offsets = name in HALVES, name not in PLAIN

    @device
    def product(codes, scales, row, words, low_sum, high_sum, d):  # type: ignore[no-untyped-def]
        low, high = np.int32(0), np.int32(0)
        for j in range(4):
            low = dp4a(codes[8 * row + j], words[j], low)
        if not has_halves:
            high = low
        for j in range(4, 8):
            high = dp4a(codes[8 * row + j], words[j], high)
        value = scales[4 * row + 1] * np.float32(high)
        if has_halves:
            value += scales[4 * row] * np.float32(low)
        value *= d
        if has_offsets:
            value += scales[4 * row + 2] * low_sum + scales[4 * row + 3] * high_sum
        return value

    @device
    def multiply(codes, scales, x, scale, sums, group, first, stride, last, acc):  # type: ignore[no-untyped-def]
        for t in range(tokens):
            own = np.int32((first + min(t, last)) * stride + group)
            words = four_at(x, 2 * own) + four_at(x, 2 * own + 1)
            d, pair = float_at(scale, own), pair_at(sums, own) if has_offsets else (np.float32(0.0), np.float32(0.0))
            for row in range(ROWS):
                acc[row * tokens + t] += product(codes, scales, row, words, pair[0], pair[1], d)

    return multiply
