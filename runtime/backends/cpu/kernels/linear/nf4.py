"""bitsandbytes' four bits: NF4 FP4, in blocks of 64 and of 32. Layouts: `formats/quants/nf4.py`.

Levels are no integers, and the nearest of 127 steps are off by half a percent of a weight: as much as activations of
eight bits are, and nothing beside what four bits cost (`python -m benchmarks.nf4`). In tile registers levels are
float32 before they are rounded to bfloat16.
"""

from __future__ import annotations

from typing import ClassVar

from llvmlite import ir

from ......formats.quants.four_bit import EIGHT_BIT_UNITS, levels_of
from ...simd.dot import lookup16, lookup16_floats, lookup_low
from ...simd.emit import I8, I16, I64, Emitter, Vec
from .blocks import Nibbles
from .lanes import REGISTER, Blocks
from .weights import SUPER, InLanes, Unpacked, WeightType, loads, nibbles


class _FourBits(WeightType):
    """Levels by a code, times an absmax; subclasses say where both are."""

    bits, offset = 8, 128
    table: ClassVar[str]

    @classmethod
    def codes(cls, e: Emitter, at: ir.Value) -> Vec:
        """The codes of the block at `at`, in the order of columns."""
        raise TypeError(f"{cls.__name__} does not say where its codes are")

    @classmethod
    def absmax(cls, e: Emitter, at: ir.Value, copies: int) -> Vec:
        """Of the blocks of 256 columns, each `copies` times."""
        raise TypeError(f"{cls.__name__} does not say where its absmaxes are")

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        blocks = [cls.codes(e, block) for block in cls._blocks(e, at, SUPER)]
        n = 64 // cls.block
        codes = [lookup16(e, cls._integers(), e.concat(blocks[i : i + n])) for i in range(0, len(blocks), n)]
        return Unpacked(codes, cls._scaled(cls.absmax(e, at, cls.block // 32)), None)

    @classmethod
    def unpack_block(cls, e: Emitter, at: ir.Value) -> Unpacked:
        absmax = e.half_to_float(e.splat(e.load(I16, 0, at), 8))
        return Unpacked([lookup16(e, cls._integers(), cls.codes(e, at))], cls._scaled(absmax), None)

    @classmethod
    def floats(cls, e: Emitter, at: ir.Value, columns: int) -> list[Vec]:
        levels, found = [float(level) for level in levels_of(cls.table)], []
        for block in cls._blocks(e, at, columns):
            absmax = e.half_to_float(e.splat(e.load(I16, 0, block), 16))
            found += [level * absmax for level in lookup16_floats(e, levels, cls.codes(e, block))]
        return found

    @classmethod
    def looked_up(cls, e: Emitter, codes: list[Vec], absmax: Vec) -> InLanes:
        """Of codes that lie in lanes already, with anything in their upper four bits."""
        return InLanes([lookup_low(e, cls._integers(), vector) for vector in codes], [cls._scaled(absmax)], [])

    @classmethod
    def _integers(cls) -> list[int]:
        """The levels, unsigned."""
        return [cls.offset + round(EIGHT_BIT_UNITS[cls.table] * float(level)) for level in levels_of(cls.table)]

    @classmethod
    def _scaled(cls, absmax: Vec) -> Vec:
        return absmax * (1 / EIGHT_BIT_UNITS[cls.table])

    @classmethod
    def _blocks(cls, e: Emitter, at: ir.Value, columns: int) -> list[ir.Value]:
        return [e.at(at, cls.block_bytes * i) for i in range(columns // cls.block)]


class NF4(_FourBits):
    block, block_bytes, table = 64, 34, "nf4"

    @classmethod
    def codes(cls, e: Emitter, at: ir.Value) -> Vec:
        return nibbles(e, loads(e, [at], 2, 32))

    @classmethod
    def absmax(cls, e: Emitter, at: ir.Value, copies: int) -> Vec:
        if e.isa.picks_bytes:
            return e.half_to_float(cls._picked(e, at, 0, 2, copies))
        found = e.gather([e.load(I16, 0, block) for block in cls._blocks(e, at, SUPER)])
        return e.half_to_float(found.take([i // copies for i in range(4 * copies)]))

    @classmethod
    def in_lanes(cls, e: Emitter, at: ir.Value) -> InLanes:
        """Of each block the m-th eight bytes, twice: their low halves are of its first 32 columns, the high ones of
        the others. A shift of 64-bit words tells them apart.
        """
        blocks = [e.load(I64, 4, block, 2) for block in cls._blocks(e, at, SUPER)]
        two, shifts = (e.concat(blocks[:2]), e.concat(blocks[2:])), e.const(I64, [0, 4] * 4)
        words = [e.shuffle(*two, [4 * (i // 2) + m for i in range(8)]) for m in range(4)]
        return cls.looked_up(e, [e.bitcast(word >> shifts, I8, 64) for word in words], cls.absmax(e, at, 4))

    @classmethod
    def _picked(cls, e: Emitter, at: ir.Value, offset: int, n: int, copies: int) -> Vec:
        """n bytes at `offset` of each block, `copies` times, out of two registers that overlap; as int16."""
        second = 3 * cls.block_bytes + n - REGISTER
        a, b = (e.load(I16, REGISTER // 2, at, offset + start) for start in (0, second))
        where = [cls.block_bytes * (i // copies) + k for i in range(4 * copies) for k in range(0, n, 2)]
        return e.shuffle(a, b, [(p if p < second else REGISTER + p - second) // 2 for p in where])


class FP4(NF4):
    table = "fp4"


class NF4_32(_FourBits, Nibbles):
    block_bytes, table = 18, "nf4"

    @classmethod
    def codes(cls, e: Emitter, at: ir.Value) -> Vec:
        return cls.block_codes(e, [at])

    @classmethod
    def absmax(cls, e: Emitter, at: ir.Value, copies: int) -> Vec:
        return cls.scales(e, [Blocks(e, at, cls.block_bytes).fields(0, I16, copies)])[0]

    @classmethod
    def in_lanes(cls, e: Emitter, at: ir.Value) -> InLanes:
        found = super(_FourBits, cls).in_lanes(e, at)
        return cls.looked_up(e, found.codes, found.scale[0])


class FP4_32(NF4_32):
    table = "fp4"
