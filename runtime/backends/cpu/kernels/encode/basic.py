"""Blocks of 32 with one scale: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0; Q8_1. The definition: `formats/quants/basic.py`."""

from __future__ import annotations

from ...simd.emit import F32, I32, Vec
from .encoder import LANES, Batch, Encoder
from .lanes import Index, byte_rows
from .search import Codes, affine, negated, reciprocal, signed_extreme, symmetric


class Block32(Encoder):
    levels = 8
    power_of = "row"
    codes_at = 2  # in a block

    @classmethod
    def store(cls, b: Batch, codes: Codes, *halves: Vec) -> None:
        """float16 fields, perhaps the fifth bits as a word, and 16 bytes with the low halves of codes j and j + 16."""
        lines = [codes(j) for j in range(32)]
        rows = byte_rows([(low & 15) | (high & 15) << 4 for low, high in zip(lines[:16], lines[16:], strict=True)])
        word = lines[0] >> 4
        for j in range(1, 32):
            word = word | (lines[j] >> 4) << j
        for k, (at, _) in enumerate(b.blocks()):
            for i, bits in enumerate(halves):
                b.e.store(bits.lane(k), at, 2 * i)
            if cls.codes_at > 2 * len(halves):
                b.e.store(word.lane(k), at, 2 * len(halves))
            b.e.store(rows[k], at, cls.codes_at)


class Symmetric(Block32):
    @classmethod
    def encode(cls, b: Batch) -> None:
        if b.weighted:
            b.weigh()
            d, codes = symmetric(b.g, cls.levels)
        else:
            d = signed_extreme(b.g) / float(-cls.levels)
            inverse = reciprocal(d)
            codes = _truncated(lambda j: b.g.x(j) * inverse + (cls.levels + 0.5), 2 * cls.levels - 1)
        cls.store(b, codes, b.half(d))


class Affine(Block32):
    @classmethod
    def encode(cls, b: Batch) -> None:
        e, g = b.e, b.g
        most_code = 2 * cls.levels - 1
        if b.weighted:
            b.weigh()
            d, minimum, codes = affine(g, most_code, (-0.9, 0.05, 36))
            m = negated(minimum)
        else:
            m, most = g.each(
                [g.x(0), g.x(0)], lambda j, ends: [e.minimum(g.x(j), ends[0]), e.maximum(g.x(j), ends[1])]
            )
            d = (most - m) / float(most_code)
            inverse = reciprocal(d)
            codes = _truncated(lambda j: (g.x(j) - m) * inverse + 0.5, most_code)
        cls.store(b, codes, b.half(d), b.half(m))


class Q4_0(Symmetric):
    block_bytes, levels = 18, 8


class Q4_1(Affine):
    block_bytes, levels, codes_at = 20, 8, 4


class Q5_0(Symmetric):
    block_bytes, levels, codes_at = 22, 16, 6


class Q5_1(Affine):
    block_bytes, levels, codes_at = 24, 16, 8


class Q8_0(Encoder):
    block_bytes = 34

    @classmethod
    def encode(cls, b: Batch) -> None:
        d, codes = _eight_bits(b)
        cls.store(b, codes, b.half(d))

    @classmethod
    def store(cls, b: Batch, codes: Codes, *halves: Vec) -> None:
        rows = byte_rows([codes(j) & 255 for j in range(32)])
        for k, (at, _) in enumerate(b.blocks()):
            for i, bits in enumerate(halves):
                b.e.store(bits.lane(k), at, 2 * i)
            b.e.store(rows[k], at, 2 * len(halves))


class Q8_1(Q8_0):
    block_bytes = 36

    @classmethod
    def encode(cls, b: Batch) -> None:
        e = b.e
        d, codes = _eight_bits(b)
        sums = b.g.each([e.zero(I32, LANES)], lambda j, sums: [sums[0] + codes(j)])[0]
        s = e.float_to_half(e.to_float(sums) * d)  # which may be infinite, as in ggml
        cls.store(b, codes, b.half(d), s)


def _eight_bits(b: Batch) -> tuple[Vec, Codes]:
    """Scales before they are rounded, and codes."""
    g, d = b.g, largest(b) / 127.0
    inverse = reciprocal(d)
    return d, lambda j: round_half_away(g.x(j) * inverse)


def largest(b: Batch) -> Vec:
    """The largest magnitude of each group."""
    e, g = b.e, b.g
    return g.each([e.zero(F32, LANES)], lambda j, most: [e.maximum(e.absolute(g.x(j)), most[0])])[0]


def round_half_away(x: Vec) -> Vec:
    """C's roundf, as int32."""
    return x.e.to_integer(x.e.call(f"llvm.round.v{x.n}f32", x.ll.type, x))


def _truncated(value: Codes, most: int) -> Codes:
    """value(j) without its fraction, at most `most`."""

    def code(j: Index) -> Vec:
        found = value(j)
        return found.e.limited(found.e.to_integer(found), 0, most)

    return code
