"""Super-blocks of 256: Q2_K Q3_K Q4_K Q5_K Q6_K. Layouts: `formats/quants/k.py`."""

from __future__ import annotations

from llvmlite import ir

from ...simd.emit import Emitter, Vec
from .weights import I8, I16, I32, Unpacked, WeightType, nibbles


def half(e: Emitter, at: ir.Value, offset: int) -> Vec:
    """One float16, and not a byte more: it may be the last of the file."""
    return e.half_to_float(e.splat(e.load(I16, 0, at, offset), 2)).lane(0)


def _bytes_to_float(e: Emitter, values: Vec) -> Vec:
    return e.to_float(e.widen_unsigned(values, I32))


def _two_bits(e: Emitter, packed: Vec, first: int) -> Vec:
    """Bits `first` and `first + 2` of 32 bytes as 64 codes of 2 bits."""
    return e.concat([(packed >> first) & 3, (packed >> (first + 2)) & 3])


class Q2_K(WeightType):
    block_bytes, group, bits = 84, 16, 2

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        scales = e.load(I8, 16, at)
        halves = [e.load(I8, 32, at, 16 + 32 * h) for h in (0, 1)]
        codes = [_two_bits(e, packed, first) for packed in halves for first in (0, 4)]
        scale = _bytes_to_float(e, scales & 15) * half(e, at, 80)
        bias = _bytes_to_float(e, scales >> 4) * (-half(e, at, 82))
        return Unpacked(codes, scale, bias)


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
                codes.append(_two_bits(e, packed, 2 * n) | e.concat(high))
        words = [e.load(I32, 0, at, 96 + 4 * i) for i in range(3)]
        low = [(word >> shift) & 0x0F0F0F0F for shift in (0, 4) for word in words[:2]]
        high = [((words[2] >> (2 * k)) & 0x03030303) << 4 for k in range(4)]
        six = e.bitcast(e.gather([a | b for a, b in zip(low, high, strict=True)]), I8, 16)
        return Unpacked(codes, (_bytes_to_float(e, six) - 32.0) * half(e, at, 108), None)


def _six_bit_pairs(e: Emitter, at: ir.Value) -> tuple[Vec, Vec]:
    """The eight 6-bit scales and minima that Q4_K and Q5_K pack into 12 bytes at offset 4, as float32."""
    a, b, c = (e.load(I32, 0, at, 4 + 4 * i) for i in range(3))
    scale = [a & 0x3F3F3F3F, (c & 0x0F0F0F0F) | (((a >> 6) & 0x03030303) << 4)]
    minimum = [b & 0x3F3F3F3F, ((c >> 4) & 0x0F0F0F0F) | (((b >> 6) & 0x03030303) << 4)]
    return tuple(_bytes_to_float(e, e.bitcast(e.gather(words), I8, 8)) for words in (scale, minimum))  # type: ignore[return-value]


class Q4_K(WeightType):
    block_bytes, bits = 144, 4

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        scale, minimum = _six_bit_pairs(e, at)
        codes = [nibbles(e, [e.load(I8, 32, at, 16 + 32 * i)]) for i in range(4)]
        return Unpacked(codes, scale * half(e, at, 0), minimum * (-half(e, at, 2)))


class Q5_K(WeightType):
    block_bytes, bits = 176, 5

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        scale, minimum = _six_bit_pairs(e, at)
        high = e.load(I8, 32, at, 16)
        codes = []
        for i in range(4):
            fifth = [((high >> (2 * i + k)) & 1) << 4 for k in (0, 1)]
            codes.append(nibbles(e, [e.load(I8, 32, at, 48 + 32 * i)]) | e.concat(fifth))
        return Unpacked(codes, scale * half(e, at, 0), minimum * (-half(e, at, 2)))


class Q6_K(WeightType):
    block_bytes, group, bits, offset = 210, 16, 6, 32

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        codes = []
        for h in (0, 1):
            low = e.load(I8, 64, at, 64 * h)
            high = e.load(I8, 32, at, 128 + 32 * h)
            codes.append((low & 15) | (_two_bits(e, high, 0) << 4))
            codes.append((low >> 4) | (_two_bits(e, high, 4) << 4))
        scale = e.to_float(e.widen_signed(e.load(I8, 16, at, 192), I32))
        return Unpacked(codes, scale * half(e, at, 208), None)
