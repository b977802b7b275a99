"""Four bytes at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..simt import device, funnel, prmt, short, word, wrapped

LOW, TWO, ONE = 0x0F0F0F0F, 0x03030303, 0x01010101  # the lowest 4, 2 and 1 bits of each byte
EVEN = 0x00FF00FF  # every second byte


@device
def spread(bits):  # type: ignore[no-untyped-def]
    """Bits 0 to 3 as the lowest ones of four bytes."""
    return (bits & 15) * 0x00204081 & ONE


@device
def spread_pairs(bits):  # type: ignore[no-untyped-def]
    """Four times two bits as the lowest ones of four bytes."""
    return bits & 3 | (bits & 12) << 6 | (bits & 48) << 12 | (bits & 192) << 18


@device
def negated(levels, signs):  # type: ignore[no-untyped-def]
    """Four bytes of 1 to 127, minus those whose bit of `signs` is set."""
    ones = spread(signs)
    # 255 - x is x with all bits turned over; and 1 more is -x.
    return (levels ^ wrapped((ones << 8) - ones)) + ones


@device
def looked_up(nibbles, first, second, third, fourth):  # type: ignore[no-untyped-def]
    """Of eight codes, two a byte, the levels: those of the low halves of the bytes, and those of the high halves.

    The table has sixteen bytes. prmt looks three bits of four codes up at once, in each half of the table; a third
    says by their fourth bit which half it is.
    """
    places, halves = nibbles & 0x77777777, nibbles >> 1 & 0x44444444 | 0x32103210
    begin = prmt(prmt(first, second, places), prmt(third, fourth, places), halves)
    places, halves = places >> 16, halves >> 16
    end = prmt(prmt(first, second, places), prmt(third, fourth, places), halves)
    return prmt(begin, end, 0x6420), prmt(begin, end, 0x7531)


@device
def even_word(w, at):  # type: ignore[no-untyped-def]
    """A word at any even address: not negative where there are 64 bits."""
    return short(w, at) | short(w, at + 2) << 16


def _reader(count: int, mask: int = -1, up: int | None = None) -> Any:
    """With `up` what is read comes to what is there, so many bits above it."""
    adds, distance = up is not None, up or 0

    @device
    def put(words, j, bits):  # type: ignore[no-untyped-def]
        words[j] = words[j] | (bits & mask) << distance if adds else bits & mask

    @device
    def read(w, at, shift, words):  # type: ignore[no-untyped-def]
        """Words from byte `at` on, wherever that is, moved down by `shift` bits, up to 7: without a mask bytes then
        have bits of their neighbours at the top. What is loaded are the words that these lie in, each once.
        """
        begin, end = at - (at & 3), at + 4 * count - 1
        shift += 8 * (at & 3)
        before = word(w, begin)
        for j in range(count - 1):
            after = word(w, begin + 4 * j + 4)
            put(words, j, funnel(before, after, shift))
            before = after
        put(words, count - 1, funnel(before, word(w, end - (end & 3)), shift))

    return read


four_words, eight_words, nibbles_of, two_bits = _reader(4), _reader(8), _reader(8, LOW), _reader(8, TWO)
third_bits, upper_pairs = _reader(8, ONE, 2), _reader(8, TWO, 4)


@device
def same(scales, scale, offset):  # type: ignore[no-untyped-def]
    """One scale and one offset for all 32."""
    scales[0] = scale
    scales[1] = scale
    scales[2] = offset
    scales[3] = offset


def as_words(levels: npt.ArrayLike) -> tuple[int, int, int, int]:
    """Sixteen signed bytes as the four words of a table."""
    first, second, third, fourth = np.asarray(levels, np.int8).view(np.int32).tolist()
    return first, second, third, fourth
