"""Four bytes at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..simt import device, prmt, word, wrapped

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

    The table has sixteen bytes. prmt looks three bits up; which half of the table it is the fourth says.
    """
    upper = (nibbles & 0x08080808) >> 1
    upper_high = nibbles >> 5 & 0x04040404
    low, high = nibbles & 0x07070707, nibbles >> 4 & 0x07070707
    return (
        _chosen(_selector(low), _selector(upper), first, second, third, fourth),
        _chosen(_selector(high), _selector(upper_high), first, second, third, fourth),
    )


@device
def _selector(halves):  # type: ignore[no-untyped-def]
    """The low halves of four bytes side by side."""
    together = halves | halves >> 4
    return together & 0xFF | together >> 8 & 0xFF00


@device
def _chosen(selector, upper, first, second, third, fourth):  # type: ignore[no-untyped-def]
    below, above = prmt(first, second, selector), prmt(third, fourth, selector)
    return prmt(below, above, 0x3210 | upper)


@device
def two_bits(w, at, shift, codes):  # type: ignore[no-untyped-def]
    """Codes of two bits of 32 neighbouring bytes."""
    for j in range(8):
        codes[j] = word(w, at + 4 * j) >> shift & TWO


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
