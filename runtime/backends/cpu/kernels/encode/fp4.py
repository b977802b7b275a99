"""Four-bit floats: MXFP4 NVFP4. The definition: `formats/quants/fp4.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ......formats.quants.fp4 import E2M1_DOUBLED
from ...simd.emit import I8, I32, Vec
from ..linear.fp4 import half_of_e4m3, power_of_two
from .basic import largest
from .encoder import LANES, Batch, Encoder
from .lanes import byte_rows
from .search import Codes


class MXFP4(Encoder):
    block_bytes = 17

    @classmethod
    def encode(cls, b: Batch) -> None:
        e, most = b.e, largest(b)
        exponent = e.select(e.less(e.like(most, 0.0), most), _floor_log2(most) + 125, e.zero(I32, LANES)) & 255
        cls.store(b, _nearest(b, power_of_two(e, exponent)), exponent)

    @classmethod
    def store(cls, b: Batch, codes: Codes, exponent: Vec) -> None:
        rows = byte_rows([codes(j) | codes(j + 16) << 4 for j in range(16)])
        for k, (at, _) in enumerate(b.blocks()):
            b.e.store(b.e.truncate(exponent.lane(k), I8), at)
            b.e.store(rows[k], at, 1)


class NVFP4(Encoder):
    size, per, block_bytes = 16, 4, 36

    @classmethod
    def encode(cls, b: Batch) -> None:
        scale = to_e4m3(largest(b) / 6.0)
        cls.store(b, _nearest(b, half_of_e4m3(b.e, scale)), scale)

    @classmethod
    def store(cls, b: Batch, codes: Codes, scale: Vec) -> None:
        e = b.e
        rows = byte_rows([codes(j) | codes(j + 8) << 4 for j in range(8)] * 2)
        for at, group in b.blocks():
            e.store(e.truncate(scale.take(range(group, group + 4)), I8), at)
            for k in range(4):
                e.store(rows[group + k].take(range(8)), at, 4 + 8 * k)


def _nearest(b: Batch, scale: Vec) -> Codes:
    """Of the values times a scale the first one that is nearest."""
    e, g = b.e, b.g

    def code(j: int) -> Vec:
        x = g.x(j)
        found, least = e.zero(I32, LANES), e.absolute(e.like(x, 0.0) * scale - x)
        for number in range(1, 16):
            off = e.absolute(scale * float(E2M1_DOUBLED[number]) - x)
            nearer = e.less(off, least)
            found, least = e.select(nearer, e.like(found, number), found), e.select(nearer, off, least)
        return found

    return code


def _floor_log2(x: Vec) -> Vec:
    """floor(log2f(x)) of numbers above zero.

    C rounds the logarithm to float32 first: the largest numbers below a power of two count as that power, the more of
    them the larger its exponent.
    """
    e = x.e
    is_small = e.less(x, 2.0**-126)
    bits = e.bitcast(e.select(is_small, x * 2.0**24, x), I32, x.n)
    exponent = (bits >> 23) - 127 - e.select(is_small, e.like(bits, 24), e.like(bits, 0))
    first = e.like(bits, 1 << 23)  # mantissas from here on are rounded up
    for start, mantissa in _rounded_up():
        first = e.select(e.compare(exponent, ">=", start), e.like(bits, mantissa), first)
    up = e.compare(bits & 0x7FFFFF, ">=", first)
    return e.select(up, exponent + 1, exponent)


def _rounded_up() -> Sequence[tuple[int, int]]:
    """(exponent, first mantissa that is rounded up from there on), wherever that changes."""
    found: list[tuple[int, int]] = []
    for exponent in range(-149, 128):
        least, most = 0, 1 << 23  # the answer is among them
        while least < most:
            middle = (least + most) // 2
            number = np.ldexp(1 + middle / 2**23, exponent)
            if np.log2(number).astype(np.float32) >= exponent + 1:
                most = middle
            else:
                least = middle + 1
        if not found or found[-1][1] != least:
            found.append((exponent, least))
    return found


def to_e4m3(x: Vec) -> Vec:
    """Unsigned E4M3 as ggml makes it: see `to_ue4m3` in formats/quants/fp4.py."""
    e = x.e
    bits = e.bitcast(x, I32, x.n)
    small = e.to_integer(e.minimum(x * 512.0 + 0.5, 7.0))
    rounded = (bits >> 20) + ((bits >> 19) & 1)
    normal = e.select(e.compare(rounded, "<", (127 + 8) << 3), rounded - (120 << 3), e.like(bits, 0x7E))
    return e.select(e.compare(bits >> 23, "<=", 120), small, normal)
