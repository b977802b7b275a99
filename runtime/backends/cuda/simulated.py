"""The instructions of instructions.py as plain Python, for Numba's simulator."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

_turns = threading.local()


def turn() -> int:
    """0 and 1 in turn, for each thread of a block by itself."""
    found: int = getattr(_turns, "next", 0)
    _turns.next = 1 - found
    return found


Array = Any  # of uint8, as the simulator hands it to kernels


def wrapped(bits: int) -> int:
    """The lowest 32 bits as int32."""
    bits = int(bits)
    bits &= 0xFFFFFFFF
    return bits - (1 << 32) if bits >> 31 else bits


def byte(array: Array, at: int) -> int:
    return int(array[at])


def short(array: Array, at: int) -> int:
    return int(array[at]) | int(array[at + 1]) << 8


def word(array: Array, at: int) -> int:
    assert at % 4 == 0, "an address that is a multiple of 4"
    return wrapped(short(array, at) | short(array, at + 2) << 16)


def word_at(array: Array, i: int) -> int:
    return int(array[i])


def float_at(array: Array, i: int) -> np.float32:
    found: np.float32 = np.float32(array[i])
    return found


def pair_at(array: Array, i: int) -> tuple[np.float32, ...]:
    return np.float32(array[2 * i]), np.float32(array[2 * i + 1])


def four_at(array: Array, i: int) -> tuple[int, ...]:
    return tuple(int(array[4 * i + k]) for k in range(4))


def floats_at(array: Array, i: int) -> tuple[np.float32, ...]:
    return tuple(np.float32(array[4 * i + k]) for k in range(4))


def four(array: Array, at: int) -> tuple[int, ...]:
    assert at % 16 == 0, "an address that is a multiple of 16"
    return tuple(word(array, at + 4 * i) for i in range(4))


def put_four(array: Array, at: int, words: tuple[int, ...]) -> None:
    assert at % 16 == 0, "an address that is a multiple of 16"
    array[at : at + 16] = np.array([wrapped(one) for one in words], np.int32).view(np.uint8)


def half(array: Array, at: int) -> np.float32:
    return half_of(short(array, at))


def half_of(bits: int) -> np.float32:
    found: np.float32 = np.float32(np.uint16(int(bits) & 0xFFFF).view(np.float16))
    return found


def float_of(bits: int) -> np.float32:
    found: np.float32 = np.uint32(int(bits) & 0xFFFFFFFF).view(np.float32)
    return found


def bits_of(value: Any) -> int:
    return int(np.float32(value).view(np.int32))


def brain_pair(low: Any, high: Any) -> int:
    """Two float32, rounded to bfloat16: `low` in the lower bits."""
    bits = np.array([low, high], np.float32).view(np.uint32).astype(np.uint64)
    rounded = bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1)) >> np.uint64(16)
    return wrapped(int(rounded[0]) | int(rounded[1]) << 16)


def dp4a(a: int, b: int, c: int) -> int:
    """c plus the products of the four signed bytes of a and b."""
    left, right = (np.int32(wrapped(v)).tobytes() for v in (a, b))
    products = np.frombuffer(left, np.int8).astype(np.int32) * np.frombuffer(right, np.int8)
    return wrapped(int(c) + int(products.sum()))


def funnel(a: int, b: int, c: int) -> int:
    """The lowest 32 bits of b and a side by side, moved down by c of 0 to 31."""
    return wrapped(((int(b) & 0xFFFFFFFF) << 32 | int(a) & 0xFFFFFFFF) >> (int(c) & 31))


def prmt(a: int, b: int, c: int) -> int:
    """Four of the eight bytes of a and b, by the lowest three bits of the four nibbles of c."""
    both = (int(b) & 0xFFFFFFFF) << 32 | int(a) & 0xFFFFFFFF
    found = 0
    for i in range(4):
        found |= (both >> 8 * (int(c) >> 4 * i & 7) & 255) << 8 * i
    return wrapped(found)


def products_of_floats(lane: int, given: Any, c: tuple[Any, ...]) -> tuple[np.float32, ...]:
    """The same of floats, by their bits without the last 13: lane 4 r + k has words k and k + 4 of rows and tokens.

    Tensor cores round toward zero: long sums in `c` lose as they do there.
    """
    cut = np.asarray(given, np.int32) & np.int32(-1 << 13)
    quads = cut.view(np.float32).reshape(8, 4, -1)
    a = np.concatenate([np.concatenate([quads[:, :, upper], quads[:, :, 2 + upper]], axis=1) for upper in (0, 1)])
    made = a.astype(np.float64) @ np.concatenate([quads[:, :, 4], quads[:, :, 5]], axis=1).T
    row, token = lane // 4, 2 * (lane % 4)
    mine = (made[row, token], made[row, token + 1], made[row + 8, token], made[row + 8, token + 1])
    return tuple(_toward_zero(one + before) for one, before in zip(mine, c, strict=True))


def _toward_zero(value: Any) -> np.float32:
    found: np.float32 = np.float32(value)
    if abs(found) > abs(value):
        found = np.nextafter(found, np.float32(0))
    return found


def products(lane: int, given: Any, half: int, c: tuple[int, ...]) -> tuple[int, ...]:
    """What lane `lane` of a warp gets of `products_of_16` or `products_of_32`.

    given int32 [lane, words of a and then of b], as the lanes of a warp hand them over: lane 4 r + k has words k of
    rows r and r + 8, and of token r; with twice the columns (`half` is 2) words k + 4 as well.
    """
    lanes = np.asarray(given, np.int32)
    quads = lanes.reshape(8, 4, -1)  # row or token, word, what
    a = np.concatenate([np.concatenate([quads[:, :, 2 * h + upper] for h in range(half)], axis=1) for upper in (0, 1)])
    b = np.concatenate([quads[:, :, 2 * half + h] for h in range(half)], axis=1)
    left, right = (np.ascontiguousarray(part).view(np.int8).astype(np.int32) for part in (a, b))
    made = left @ right.T  # [16 rows, 8 tokens]
    row, token = lane // 4, 2 * (lane % 4)
    mine = (made[row, token], made[row, token + 1], made[row + 8, token], made[row + 8, token + 1])
    return tuple(wrapped(int(one) + int(before)) for one, before in zip(mine, c, strict=True))
