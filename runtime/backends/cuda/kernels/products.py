"""What a warp multiplies: two rows of weights with a few rows of activations.

The two rows may lie anywhere, even in two matrices. Activations are loaded once for both. The lanes of a warp load the
blocks of 32 groups of 32 weights of both rows, 16 bytes a load, wherever a row begins, and put them into shared memory;
then each takes a group, while what comes next is on its way. It is unpacked to int8 in registers and multiplied with
activations of int8 (quantize.py): these products are whole numbers until they meet their scales.

Weights of 16 and 32 bits are multiplied with float32 activations; then `scale` and `sums` are not looked at. A lane
takes 16 bytes of each row, or a single weight where rows are no multiple of that.

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
    floats_at,
    four,
    four_at,
    half,
    half_of,
    meet,
    pair_at,
    put_four,
    shared_bytes,
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


@device
def _float32_of(bits, upper):  # type: ignore[no-untyped-def]
    return float_of(bits)


@device
def _float16_of(bits, upper):  # type: ignore[no-untyped-def]
    return half_of(bits >> 16 * upper & 0xFFFF)


@device
def _bfloat16_of(bits, upper):  # type: ignore[no-untyped-def]
    return float_of(wrapped(bits >> 16 * upper << 16))


# A weight of a word that was loaded: the lower or the upper one.
_OF_WORD: dict[str, Any] = {"F32": _float32_of, "F16": _float16_of, "BF16": _bfloat16_of}


def two_rows(name: str, tokens: int) -> Any:
    """f(w0, row0, w1, row1, row_bytes, table, x, scale, sums, first, stride, last, acc): sums over whole rows.

    Weights w0 from byte row0 on and w1 from row1 on, for tokens first + min(t, last) of activations with `stride`
    groups a row. All lanes get the sums: acc float32 [ROWS * tokens], those of the first row first.
    """
    return (_floats if name in FLOATS else _staged)(name, tokens)


def _floats(name: str, tokens: int) -> Any:
    weight, of_word, each = FLOAT_WEIGHTS[name], _OF_WORD[name], 1 if name == "F32" else 2  # weights in a word

    @device
    def ask(w0, row0, w1, row1, i, count, held):  # type: ignore[no-untyped-def]
        if i < count:
            one, other = four(w0, row0 + LOAD * np.int64(i)), four(w1, row1 + LOAD * np.int64(i))
            for k in range(4):
                held[k] = one[k]
                held[4 + k] = other[k]

    @device
    def add(words, x, own, t, acc):  # type: ignore[no-untyped-def]
        """The weights of four words of each row; `own` is the number of the first four activations."""
        for p in range(each):
            values = floats_at(x, own + p)
            for k in range(4):
                at, upper = (4 * p + k) // each, (4 * p + k) % each
                acc[t] += of_word(words[at], upper) * values[k]
                acc[tokens + t] += of_word(words[4 + at], upper) * values[k]

    @cuda.jit(device=True)
    def multiply_rows(w0, row0, w1, row1, row_bytes, table, x, scale, sums, first, stride, last, acc):  # type: ignore[no-untyped-def]
        held = cuda.local.array(8, np.int32)
        words = cuda.local.array(8, np.int32)
        lane = np.int32(cuda.threadIdx.x)
        for t in range(ROWS * tokens):
            acc[t] = np.float32(0.0)
        if row_bytes & 15 == 0:
            count = np.int32(row_bytes >> 4)
            ask(w0, row0, w1, row1, lane, count, held)
            for i in range(lane, count, np.int32(WARP)):
                for k in range(8):
                    words[k] = held[k]
                ask(w0, row0, w1, row1, np.int32(i + WARP), count, held)
                for t in range(tokens):
                    add(words, x, np.int32(((first + min(t, last)) * stride >> 2) + each * i), t, acc)
        else:
            for i in range(lane, np.int32(stride), np.int32(WARP)):
                one, other = weight(w0, row0, i), weight(w1, row1, i)
                for t in range(tokens):
                    value = float_at(x, (first + min(t, last)) * stride + i)
                    acc[t] += one * value
                    acc[tokens + t] += other * value
        for t in range(ROWS * tokens):
            acc[t] = warp_sum(acc[t])

    return multiply_rows


def _staged(name: str, tokens: int) -> Any:
    unpack, multiply = UNPACK[name], _group(name, tokens)
    chunk = GGMLType[name].row_bytes(32 * WARP)  # of 32 groups, which are whole blocks of every type
    pieces = (chunk + 2 * (LOAD - 1)) // LOAD  # that it lies in, wherever it begins
    each, room = -(-pieces // WARP), LOAD * pieces
    stage, n_held, n_codes, n_scales = shared_bytes(WARPS * ROWS * room), ROWS * each * 4, ROWS * 8, ROWS * 4

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
