"""One or two bits a weight: TQ1_0 TQ2_0 Q1_0 Q2_0. The definition: `formats/quants/low.py`."""

from __future__ import annotations

from ...simd.emit import F32, I8, I16, I32, Vec
from .basic import largest, round_half_away
from .encoder import Batch, Encoder
from .k import highest, merged, store_two_bits, wide
from .lanes import block_means, byte_rows
from .search import Codes, reciprocal


def _scaled(b: Batch) -> tuple[Vec, Codes]:
    """The largest magnitude of each block as float16, and codes 0, 1, 2 for -1, 0 and 1 times it."""
    d = highest(largest(b), b.per)
    inverse = reciprocal(d)
    return b.half(d), lambda j: round_half_away(b.g.x(j) * inverse) + 1


class TQ2_0(Encoder):
    size, per, block_bytes = 16, 16, 66

    @classmethod
    def encode(cls, b: Batch) -> None:
        d, codes = _scaled(b)
        rows = wide(byte_rows([codes(j) & 3 for j in range(16)]))
        for at, group in b.blocks():
            store_two_bits(rows, at, 0)
            b.e.store(d.lane(group), at, 64)


class TQ1_0(Encoder):
    size, per, block_bytes = 16, 16, 54

    @classmethod
    def encode(cls, b: Batch) -> None:
        d, codes = _scaled(b)
        rows = byte_rows([codes(j) for j in range(16)])
        last = rows[15]
        for at, group in b.blocks():
            b.e.store(_trits(wide(rows[:10])), at)
            b.e.store(_trits(rows[10:15]), at, 32)
            b.e.store(_trits([last.take(range(4 * m, 4 * m + 4)) for m in range(4)]), at, 48)
            b.e.store(d.lane(group), at, 52)


def _trits(digits: list[Vec]) -> Vec:
    """Digits to base 3, most significant first, as a fraction of 256 in a byte."""
    e = digits[0].e
    number = e.zero(I32, digits[0].n)
    for k, digit in enumerate(digits):
        number = number + e.widen_unsigned(digit, I32) * 3 ** (4 - k)
    return e.truncate((number * 256 + 242) / 243, I8)


class Q2_0(Encoder):
    size, block_bytes = 64, 18

    @classmethod
    def encode(cls, b: Batch) -> None:
        d, codes = _scaled(b)
        cls.store(b, codes, d)

    @classmethod
    def store(cls, b: Batch, codes: Codes, d: Vec) -> None:
        words = [merged([(codes(first + j) & 3) << 2 * j for j in range(16)]) for first in range(0, 64, 16)]
        for k, (at, _) in enumerate(b.blocks()):
            b.e.store(d.lane(k), at)
            for i, word in enumerate(words):
                b.e.store(word.lane(k), at, 2 + 4 * i)


class Q1_0(Encoder):
    size, per, block_bytes = 16, 8, 18

    @classmethod
    def encode(cls, b: Batch) -> None:
        e = b.e
        d = b.half(block_means(e, b.x, cls.per, cls.size, lambda one: e.call("llvm.fabs.f32", F32, one)))
        bits = [e.widen_unsigned(e.compare(b.g.x(j), ">=", 0.0), I32) << j for j in range(16)]
        words = e.truncate(merged(bits), I16)
        for at, group in b.blocks():
            e.store(d.lane(group), at)
            e.store(words.take(range(group, group + 8)), at, 2)
