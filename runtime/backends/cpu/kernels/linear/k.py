"""Super-blocks of 256: Q2_K Q3_K Q4_K Q5_K Q6_K. Layouts: `formats/quants/k.py`."""

from __future__ import annotations

from llvmlite import ir

from ...simd.emit import F32, I64, Emitter, Vec
from .lanes import in_lanes, spread
from .weights import I8, I16, I32, InLanes, Unpacked, WeightType, halves, nibbles


def half(e: Emitter, at: ir.Value, offset: int) -> Vec:
    """One float16, and not a byte more: it may be the last of the file."""
    return e.half_to_float(e.splat(e.load(I16, 0, at, offset), 2)).lane(0)


def _bytes_to_float(e: Emitter, values: Vec) -> Vec:
    return e.to_float(e.widen_unsigned(values, I32))


def shifted(packed: Vec, left: int) -> Vec:
    """Bytes shifted as 32-bit lanes, for there is no shift of bytes: who asks masks off what the neighbours bring."""
    words = packed.e.bitcast(packed, I32, packed.n // 4)
    return packed.e.bitcast(words << left if left > 0 else words >> -left, I8, packed.n)


# The groups of 32 columns in the four pairs of bits of 64 bytes, as Q2_K and Q3_K have them, Q6_K those of its codes.
BY_BITS = ((0, 4), (1, 5), (2, 6), (3, 7))


def two_bits(e: Emitter, packed: Vec, first: int) -> Vec:
    """Bits `first` and `first + 2` of 32 bytes as 64 codes of 2 bits."""
    return e.concat([(packed >> first) & 3, (packed >> (first + 2)) & 3])


class Q2_K(WeightType):
    block_bytes, group, bits = 84, 16, 2

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        scales = e.load(I8, 16, at)
        halves = [e.load(I8, 32, at, 16 + 32 * h) for h in (0, 1)]
        codes = [two_bits(e, packed, first) for packed in halves for first in (0, 4)]
        scale = _bytes_to_float(e, scales & 15) * half(e, at, 80)
        bias = _bytes_to_float(e, scales >> 4) * (-half(e, at, 82))
        return Unpacked(codes, scale, bias)

    @classmethod
    def in_lanes(cls, e: Emitter, at: ir.Value) -> InLanes:
        packed, u = e.load(I8, 64, at, 16), cls.unpack(e, at)
        assert u.bias is not None
        codes = [shifted(packed, -2 * n) & 3 for n in range(4)]
        return InLanes(in_lanes(codes, BY_BITS), spread(u.scale), spread(u.bias))


class Q3_K(WeightType):
    block_bytes, group, bits, offset = 110, 16, 3, 4

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        mask = e.load(I8, 32, at)
        codes = []
        for h in (0, 1):
            packed = e.load(I8, 32, at, 32 + 32 * h)
            for n in (0, 2):
                high = [((mask >> (4 * h + k)) & 1) << 2 for k in (n, n + 1)]
                codes.append(two_bits(e, packed, 2 * n) | e.concat(high))
        return Unpacked(codes, cls._scale(e, at), None)

    @classmethod
    def in_lanes(cls, e: Emitter, at: ir.Value) -> InLanes:
        mask, packed = e.load(I32, 8, at), e.load(I8, 64, at, 32)
        mask, codes = e.concat([mask, mask]), []
        for n in range(4):  # bit n of the mask belongs to the first group, bit n + 4 to the second: to bit 2
            high = e.bitcast(e.rotate(mask, [2 - n] * 8 + [-2 - n] * 8), I8, 64)
            codes.append((shifted(packed, -2 * n) & 3) | (high & 4))
        return InLanes(in_lanes(codes, BY_BITS), spread(cls._scale(e, at)), [])

    @classmethod
    def _scale(cls, e: Emitter, at: ir.Value) -> Vec:
        words = [e.load(I32, 0, at, 96 + 4 * i) for i in range(3)]
        low = [(word >> shift) & 0x0F0F0F0F for shift in (0, 4) for word in words[:2]]
        high = [((words[2] >> (2 * k)) & 0x03030303) << 4 for k in range(4)]
        six = e.bitcast(e.gather([a | b for a, b in zip(low, high, strict=True)]), I8, 16)
        return (_bytes_to_float(e, six) - 32.0) * half(e, at, 108)


def _six_bit_pairs(e: Emitter, at: ir.Value) -> Vec:
    """Scales and biases of the eight groups of Q4_K and Q5_K, one behind the other in sixteen lanes.

    Bytes 4 to 15 pack six bits of each: words a, b, c have the first four scales in a, the first four minima in b, and
    of the others the low four bits in c, the high two in what a and b have left.
    """
    words = e.load(I32, 4, at)  # d and dmin, a, b, c
    low = words.take([1, 3, 2, 3]) >> e.const(I32, [0, 0, 0, 4]) & e.const(I32, [0x3F3F3F3F, 0x0F0F0F0F] * 2)
    high = words.take([1, 1, 2, 2]) >> 2 & e.const(I32, [0, 0x30303030] * 2)
    six = _bytes_to_float(e, e.bitcast(low | high, I8, 16))
    factors = e.half_to_float(e.load(I16, 2, at)) * e.const(F32, [1.0, -1.0])
    return six * factors.take([0] * 8 + [1] * 8)


def _spread_pairs(e: Emitter, at: ir.Value) -> tuple[list[Vec], list[Vec]]:
    both = _six_bit_pairs(e, at)
    scale, bias = ([both.take([first + lane // 2 for lane in range(16)])] for first in (0, 8))
    return scale, bias


# The groups of 32 columns in the low and in the high halves of 64 bytes, and of the next 64.
_LOW_AND_HIGH = ((0, 2), (1, 3), (4, 6), (5, 7))


def _nibble_lanes(e: Emitter, at: ir.Value, offset: int) -> list[Vec]:
    """The halves of 128 bytes in the lanes of a packet: words of eight bytes are picked twice, for both halves, and a
    shift of words tells these apart.
    """
    words, shifts = [e.load(I64, 8, at, offset + 64 * i) for i in (0, 1)], e.const(I64, [0, 4] * 4)
    picked = [e.shuffle(*words, [4 * (i // 2) + m for i in range(8)]) for m in range(4)]
    return [e.bitcast(word >> shifts, I8, 64) & 15 for word in picked]


class Q4_K(WeightType):
    block_bytes, bits = 144, 4

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        both = _six_bit_pairs(e, at)
        codes = [nibbles(e, [e.load(I8, 32, at, 16 + 32 * i)]) for i in range(4)]
        return Unpacked(codes, both.take(range(8)), both.take(range(8, 16)))

    @classmethod
    def in_lanes(cls, e: Emitter, at: ir.Value) -> InLanes:
        return InLanes(_nibble_lanes(e, at, 16), *_spread_pairs(e, at))


class Q5_K(WeightType):
    block_bytes, bits = 176, 5

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        both = _six_bit_pairs(e, at)
        high = e.load(I8, 32, at, 16)
        codes = []
        for i in range(4):
            fifth = [((high >> (2 * i + k)) & 1) << 4 for k in (0, 1)]
            codes.append(nibbles(e, [e.load(I8, 32, at, 48 + 32 * i)]) | e.concat(fifth))
        return Unpacked(codes, both.take(range(8)), both.take(range(8, 16)))

    @classmethod
    def in_lanes(cls, e: Emitter, at: ir.Value) -> InLanes:
        codes = [part for i in (0, 1) for part in halves(e, e.load(I8, 64, at, 48 + 64 * i))]
        fifth = e.load(I32, 8, at, 16)
        fifth = e.concat([fifth, fifth])
        for i, (first, second) in enumerate(_LOW_AND_HIGH):  # bit g of a byte belongs to group g: to bit 4
            bit = e.bitcast(e.rotate(fifth, [4 - first] * 8 + [4 - second] * 8), I8, 64)
            codes[i] = codes[i] | (bit & 16)
        return InLanes(in_lanes(codes, _LOW_AND_HIGH), *_spread_pairs(e, at))


class Q6_K(WeightType):
    block_bytes, group, bits, offset = 210, 16, 6, 32

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        codes = []
        for h in (0, 1):
            low = e.load(I8, 64, at, 64 * h)
            high = e.load(I8, 32, at, 128 + 32 * h)
            codes.append((low & 15) | (two_bits(e, high, 0) << 4))
            codes.append((low >> 4) | (two_bits(e, high, 4) << 4))
        return Unpacked(codes, cls._scale(e, at), None)

    @classmethod
    def in_lanes(cls, e: Emitter, at: ir.Value) -> InLanes:
        low = [e.concat([e.load(I8, 32, at, 64 * h + 32 * i) for h in (0, 1)]) for i in (0, 1)]
        high = e.load(I8, 64, at, 128)
        fours = [part for pair in zip(*(halves(e, packed) for packed in low), strict=True) for part in pair]
        codes = [four | (shifted(high, 4 - 2 * n) & 0x30) for n, four in enumerate(fours)]
        return InLanes(in_lanes(codes, BY_BITS), spread(cls._scale(e, at)), [])

    @classmethod
    def _scale(cls, e: Emitter, at: ir.Value) -> Vec:
        return e.to_float(e.widen_signed(e.load(I8, 16, at, 192), I32)) * half(e, at, 208)
