"""Points of grids instead of single weights: IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S.

Layouts: `formats/quants/iq1.py`, `iq2.py` and `iq3.py`, whose grids become constants of the kernel. 8 or 4 weights are
looked up at once; signs are turned into codes around a zero point.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llvmlite import ir

from ......formats.quants.grids import grid
from ......formats.quants.signs import EVEN
from ...simd.emit import I1, I8, I16, I32, I64, Emitter, Vec
from .k import half
from .weights import Unpacked, WeightType

_EVEN_BITS = bytes(int(sum(1 << i for i in range(8) if row[i] < 0)) for row in EVEN)


class Lattice(WeightType):
    """A type whose weights are points of `grid`, times `factor` so that they are integers."""

    grid = ""
    factor = 1

    @classmethod
    def points(cls, e: Emitter, numbers: Sequence[Vec]) -> list[Vec]:
        """Those with these numbers (int64), as four vectors of 64 int8."""
        values = grid(cls.grid).values
        table = e.constant((values * cls.factor).astype(np.int8).tobytes())
        size = values.shape[1]
        word, per = (I64, 8) if size == 8 else (I32, 16)
        found = [e.load(word, 0, e.index(table, number.ll, size)) for number in numbers]
        return [e.bitcast(e.gather(found[per * i : per * i + per]), I8, 64) for i in range(4)]

    @classmethod
    def with_signs(cls, e: Emitter, points: Sequence[Vec], signs: Sequence[Vec]) -> list[Vec]:
        """Codes: points to either side of the zero point. signs: 32 bytes (int8), a bit for each of 8 weights."""
        codes = []
        for i, vector in enumerate(points):
            is_negative = e.bitcast(e.gather(signs[8 * i : 8 * i + 8]), I1, 64)
            codes.append(e.select(is_negative, -vector, vector) + (cls.offset or 0))
        return codes


def _bytes(e: Emitter, at: ir.Value, offset: int, count: int) -> list[Vec]:
    """As int64."""
    return [e.widen_unsigned(e.load(I8, 0, at, offset + i), I64) for i in range(count)]


def _even(e: Emitter, seven_bits: Sequence[Vec]) -> list[Vec]:
    """The eight bits of signs of which seven (int64) are stored."""
    table = e.constant(_EVEN_BITS)
    return [e.load(I8, 0, e.at(table, bits.ll)) for bits in seven_bits]


def _words(e: Emitter, words: Sequence[Vec]) -> tuple[list[Vec], Vec]:
    """Of eight int32 the four times seven bits of signs, int64, and the scales in the upper four bits, float32 [8]."""
    seven = [e.widen_unsigned((word >> 7 * k) & 127, I64) for word in words for k in range(4)]
    return seven, e.to_float(e.gather(words) >> 28)


def _nibbles(e: Emitter, packed: Vec) -> Vec:
    """Four-bit scales, the lower one first, as float32."""
    low, high = (e.widen_unsigned(v, I32) for v in (packed & 15, packed >> 4))
    return e.to_float(e.shuffle(low, high, [k // 2 + packed.n * (k % 2) for k in range(2 * packed.n)]))


class IQ2_XXS(Lattice):
    block_bytes, bits, offset, grid = 66, 7, 64, "IQ2_XXS"

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        numbers = [one for g in range(8) for one in _bytes(e, at, 2 + 8 * g, 4)]
        seven, scales = _words(e, [e.load(I32, 0, at, 6 + 8 * g) for g in range(8)])
        codes = cls.with_signs(e, cls.points(e, numbers), _even(e, seven))
        return Unpacked(codes, (scales + 0.5) * 0.25 * half(e, at, 0), None)


class IQ2_XS(Lattice):
    block_bytes, group, bits, offset, grid = 74, 16, 7, 64, "IQ2_XS"

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        words = [e.widen_unsigned(e.load(I16, 0, at, 2 + 2 * i), I64) for i in range(32)]
        points = cls.points(e, [word & 511 for word in words])
        codes = cls.with_signs(e, points, _even(e, [word >> 9 for word in words]))
        return Unpacked(codes, (_nibbles(e, e.load(I8, 8, at, 66)) + 0.5) * 0.25 * half(e, at, 0), None)


class IQ2_S(Lattice):
    block_bytes, group, bits, offset, grid = 82, 16, 7, 64, "IQ2_S"

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        upper = _bytes(e, at, 66, 8)
        low = _bytes(e, at, 2, 32)
        numbers = [one | (upper[i // 4] >> 2 * (i % 4) & 3) << 8 for i, one in enumerate(low)]
        codes = cls.with_signs(e, cls.points(e, numbers), [e.load(I8, 0, at, 34 + i) for i in range(32)])
        return Unpacked(codes, (_nibbles(e, e.load(I8, 8, at, 74)) + 0.5) * 0.25 * half(e, at, 0), None)


class IQ3_XXS(Lattice):
    block_bytes, bits, offset, grid = 98, 7, 64, "IQ3_XXS"

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        seven, scales = _words(e, [e.load(I32, 0, at, 66 + 4 * g) for g in range(8)])
        codes = cls.with_signs(e, cls.points(e, _bytes(e, at, 2, 64)), _even(e, seven))
        return Unpacked(codes, (scales + 0.5) * 0.5 * half(e, at, 0), None)


class IQ3_S(Lattice):
    block_bytes, bits, offset, grid = 110, 5, 16, "IQ3_S"

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        upper, low = _bytes(e, at, 66, 8), _bytes(e, at, 2, 64)
        numbers = [one | (upper[i // 8] >> i % 8 & 1) << 8 for i, one in enumerate(low)]
        codes = cls.with_signs(e, cls.points(e, numbers), [e.load(I8, 0, at, 74 + i) for i in range(32)])
        return Unpacked(codes, (_nibbles(e, e.load(I8, 4, at, 106)) * 2.0 + 1.0) * half(e, at, 0), None)


class Shifted(Lattice):
    """IQ1: points of -1, 0, 1 are shifted by an eighth either way, so eight times as much is an integer."""

    bits, offset, grid, factor = 5, 16, "IQ1_S", 8

    @classmethod
    def codes(cls, e: Emitter, numbers: Sequence[Vec], shifts: Sequence[Vec]) -> list[Vec]:
        """shifts: 1 or -1 for each point, int8."""
        made = []
        for i, vector in enumerate(cls.points(e, numbers)):
            spread = e.gather(shifts[8 * i : 8 * i + 8]).take([k // 8 for k in range(64)])
            made.append(vector + spread + 16)
        return made


class IQ1_S(Shifted):
    block_bytes = 50

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        words = [e.widen_unsigned(e.load(I16, 0, at, 34 + 2 * g), I64) for g in range(8)]
        low = _bytes(e, at, 2, 32)
        numbers = [one | (words[i // 4] >> 3 * (i % 4) & 7) << 8 for i, one in enumerate(low)]
        shifts = [e.truncate(e.scalar(I64, 1) - (word >> 15 << 1), I8) for word in words for _ in range(4)]
        three = e.gather([e.truncate(word >> 12 & 7, I32) for word in words])
        scale = (e.to_float(three) * 2.0 + 1.0) * 0.125 * half(e, at, 0)
        return Unpacked(cls.codes(e, numbers, shifts), scale, None)


class IQ1_M(Shifted):
    block_bytes, group = 56, 16

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        fields = [byte >> 4 * k & 15 for byte in _bytes(e, at, 32, 16) for k in (0, 1)]
        numbers = [one | (field & 7) << 8 for one, field in zip(_bytes(e, at, 0, 32), fields, strict=True)]
        shifts = [e.truncate(e.scalar(I64, 1) - (field >> 3 << 1), I8) for field in fields]
        words = [e.widen_unsigned(e.load(I16, 0, at, 48 + 2 * k), I32) for k in range(4)]
        three = e.gather([word >> 3 * k & 7 for word in words for k in range(4)])
        d = words[0] >> 12
        for k, word in enumerate(words[1:], 1):
            d = d | (word >> 12) << 4 * k
        whole = e.half_to_float(e.splat(e.truncate(d, I16), 2)).lane(0)
        scale = (e.to_float(three) * 2.0 + 1.0) * 0.125 * whole
        return Unpacked(cls.codes(e, numbers, shifts), scale, None)
