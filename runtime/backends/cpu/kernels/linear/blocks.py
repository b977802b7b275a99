"""Types with blocks of less than 256 columns: how some of them make 256 columns, and how one is unpacked alone."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ...simd.dot import lookup16
from ...simd.emit import I1, Emitter, Vec
from .lanes import Blocks, in_lanes
from .weights import I8, I16, I32, SUPER, InLanes, Unpacked, WeightType, halves, loads, nibbles


class Block32(WeightType):
    """A type with blocks of 32 columns: says how one block unpacks; eight of them make 256 columns."""

    block = 32
    fields: Sequence[tuple[int, ir.Type]] = ((0, I16),)  # the scalars that make scale and bias: place in a block, type

    @classmethod
    def block_codes(cls, e: Emitter, at: Sequence[ir.Value]) -> Vec:
        """The codes of one or two blocks, 32 each."""
        raise TypeError(f"{cls.__name__} does not say where its codes are")

    @classmethod
    def scales(cls, e: Emitter, fields: list[Vec]) -> tuple[Vec, Vec | None]:
        """Scale and bias from vectors of the fields."""
        return e.half_to_float(fields[0]), None

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        blocks = [e.at(at, i * cls.block_bytes) for i in range(8)]
        codes = [cls.block_codes(e, blocks[i : i + 2]) for i in (0, 2, 4, 6)]
        return Unpacked(codes, *cls._scales_of(e, Blocks(e, at, cls.block_bytes)))

    @classmethod
    def unpack_block(cls, e: Emitter, at: ir.Value) -> Unpacked:
        fields = [e.splat(e.load(element, 0, at, offset), 8) for offset, element in cls.fields]
        return Unpacked([cls.block_codes(e, [at])], *cls.scales(e, fields))

    @classmethod
    def in_lanes(cls, e: Emitter, at: ir.Value) -> InLanes:
        blocks = [e.at(at, i * cls.block_bytes) for i in range(8)]
        codes = in_lanes([cls.block_codes(e, blocks[i : i + 2]) for i in (0, 2, 4, 6)])
        return cls._with_scales(e, codes, Blocks(e, at, cls.block_bytes))

    @classmethod
    def _with_scales(cls, e: Emitter, codes: list[Vec], blocks: Blocks) -> InLanes:
        scale, bias = cls._scales_of(e, blocks, 2)  # two lanes a block
        return InLanes(codes, [scale], [] if bias is None else [bias])

    @classmethod
    def _scales_of(cls, e: Emitter, blocks: Blocks, copies: int = 1) -> tuple[Vec, Vec | None]:
        return cls.scales(e, [blocks.fields(offset, element, copies) for offset, element in cls.fields])


class LongerBlocks(WeightType):
    """A type with blocks of 64 or 128 columns: says how some that follow each other unpack."""

    @classmethod
    def unpack_blocks(cls, e: Emitter, at: ir.Value, count: int) -> Unpacked:
        raise TypeError(f"{cls.__name__} does not say how it unpacks")

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        return cls.unpack_blocks(e, at, SUPER // cls.block)

    @classmethod
    def unpack_block(cls, e: Emitter, at: ir.Value) -> Unpacked:
        return cls.unpack_blocks(e, at, 1)


class Affine(Block32):
    """A minimum beside the scale: w = d * code + m."""

    fields = ((0, I16), (2, I16))

    @classmethod
    def scales(cls, e: Emitter, fields: list[Vec]) -> tuple[Vec, Vec | None]:
        return e.half_to_float(fields[0]), e.half_to_float(fields[1])


class Nibbles(Block32):
    """16 bytes with four bits of two codes each, columns j and j + 16; perhaps a fifth bit, or a table of levels."""

    codes_at = 2  # in a block
    fifth_at: int | None = None  # where a 32-bit word has the fifth bits
    levels: Sequence[int] | None = None  # what the sixteen codes stand for

    @classmethod
    def block_codes(cls, e: Emitter, at: Sequence[ir.Value]) -> Vec:
        codes = nibbles(e, loads(e, at, cls.codes_at, 16))
        if cls.fifth_at is not None:
            bits = e.bitcast(e.gather([e.load(I32, 0, one, cls.fifth_at) for one in at]), I1, codes.n)
            codes = e.select(bits, codes + 16, codes)
        return lookup16(e, cls.levels, codes) if cls.levels else codes

    @classmethod
    def in_lanes(cls, e: Emitter, at: ir.Value) -> InLanes:
        """The low halves of a block's bytes are its words 0 and 1, the high halves its words 2 and 3."""
        blocks = Blocks(e, at, cls.block_bytes)
        (a, c), (b, d) = (halves(e, run) for run in blocks.runs(cls.codes_at))
        codes = [a, b, c, d]
        if cls.fifth_at is not None:
            words = e.bitcast(blocks.fields(cls.fifth_at, I32), I8, 32)
            codes = [_with_fifth_bit(e, vector, words, m) for m, vector in enumerate(codes)]
        if cls.levels:
            codes = [lookup16(e, cls.levels, vector) for vector in codes]
        return cls._with_scales(e, codes, blocks)


def _with_fifth_bit(e: Emitter, codes: Vec, words: Vec, m: int) -> Vec:
    """Vector m has columns 8 m to 8 m + 7 of each block, and byte m of its word their fifth bits."""
    bits = words.take([4 * (k // 8) + m for k in range(64)]) & e.const(I8, [1 << k % 8 for k in range(64)])
    is_set = Vec(e, e.b.icmp_unsigned("!=", bits.ll, e.like(bits, 0).ll))
    return e.select(is_set, codes + 16, codes)
