"""What the kernels ask of a quantized weight type.

Every type is seen the same way: a weight is `scale * code + bias`, with an unsigned integer code, and one (scale, bias)
for each group of 32 or 16 consecutive columns. Types with a fixed zero point say `offset` and have no bias of their
own: it is `-offset * scale`. So one row product, one panel product and one row decoder serve all types, and adding a
type is one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from ...simd.emit import F32, I8, I16, I32, Emitter, Vec
from .lanes import in_lanes, spread

SUPER = 256  # columns handled at once: a super-block, or eight blocks of 32


@dataclass(frozen=True)
class Unpacked:
    """256 columns of one row: four vectors of 64 codes in column order; scale and bias per group (8 or 16 lanes)."""

    codes: Sequence[Vec]
    scale: Vec
    bias: Vec | None


@dataclass(frozen=True)
class InLanes:
    """256 columns of one row in the lanes of a packet (lanes.py).

    Four vectors of 64 codes; one vector of scales and one of biases (or none), or two where groups have 16 columns: for
    codes 0 and 1, and for codes 2 and 3.
    """

    codes: list[Vec]
    scale: list[Vec]
    bias: list[Vec]

    def where(self, there: Vec) -> InLanes:
        """Scales and biases of zero in the other lanes, whatever was read there."""
        scale, bias = (
            [v.e.select(there, v, v.e.like(v, 0.0)) for v in vectors] for vectors in (self.scale, self.bias)
        )
        return InLanes(self.codes, scale, bias)


class WeightType:
    """A quantized type. Subclasses set the class attributes and unpack 256 columns (`unpack`)."""

    block = 256  # columns in a block
    block_bytes = 0
    group = 32  # columns that share a scale
    bits = 8  # bits of a code
    offset: int | None = None  # fixed zero point (a power of two), None: the type stores its own bias

    @classmethod
    def super_bytes(cls) -> int:
        """Bytes of 256 columns."""
        return SUPER // cls.block * cls.block_bytes

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        """The 256 columns whose blocks start at address `at`."""
        raise TypeError(f"{cls.__name__} does not say how it unpacks")

    @classmethod
    def unpack_block(cls, e: Emitter, at: ir.Value) -> Unpacked:
        """One block at address `at`, of less than 256 columns: the end of a row. There may be more lanes of scales and
        biases than groups; what is in the others means nothing.
        """
        raise TypeError(f"{cls.__name__} does not say how one of its blocks unpacks")

    @classmethod
    def in_lanes(cls, e: Emitter, at: ir.Value) -> InLanes:
        """The same for a product of rows. Types override it where their bytes lie better than columns in order do."""
        u = cls.unpack(e, at)
        return InLanes(in_lanes(u.codes), spread(u.scale), [] if u.bias is None else spread(u.bias))

    @classmethod
    def floats(cls, e: Emitter, at: ir.Value, columns: int) -> list[Vec]:
        """So many columns, 256 or a block, as float32: a vector for each 16."""
        u = cls.unpack(e, at) if columns == SUPER else cls.unpack_block(e, at)
        bias, found = cls.bias_of(e, u.scale, u.bias), []
        for i in range(0, columns, 16):
            codes = e.widen_unsigned(u.codes[i // 64].take(range(i % 64, i % 64 + 16)), I32)
            group = [i // cls.group] * 16
            found.append(e.fma(e.to_float(codes), u.scale.take(group), bias.take(group)))
        return found

    @classmethod
    def bias_of(cls, e: Emitter, scale: Vec, bias: Vec | None) -> Vec:
        """The bias as a vector, also for types with a fixed zero point."""
        return bias if bias is not None else scale * float(-(cls.offset or 0))


def nibbles(e: Emitter, runs: Sequence[Vec]) -> Vec:
    """Codes of 4 bits, run by run: all low halves of its bytes, then all high halves.

    Each run is doubled (a load can do that), and one shift of 32-bit lanes serves all: what it brings in from the
    neighbouring byte is masked off.
    """
    doubled = e.concat([run.take([*range(run.n)] * 2) for run in runs])
    quarter = runs[0].n // 4
    shifts = ([0] * quarter + [4] * quarter) * len(runs)
    shifted = e.bitcast(doubled, I32, doubled.n // 4) >> e.const(I32, shifts)
    return e.bitcast(shifted, I8, doubled.n) & 15


def halves(e: Emitter, packed: Vec) -> tuple[Vec, Vec]:
    """The low and the high four bits of bytes: one shift of 32-bit lanes, since there is none of bytes."""
    high = e.bitcast(e.bitcast(packed, I32, packed.n // 4) >> 4, I8, packed.n)
    return packed & 15, high & 15


def loads(e: Emitter, at: Sequence[ir.Value], offset: int, n: int) -> list[Vec]:
    """n bytes from each address."""
    return [e.load(I8, n, one, offset) for one in at]


__all__ = [
    "F32", "I8", "I16", "I32", "SUPER", "InLanes", "Unpacked", "WeightType", "halves", "loads", "nibbles",
]  # fmt: skip
