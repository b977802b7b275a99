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

SUPER = 256  # columns handled at once: a super-block, or eight blocks of 32


@dataclass(frozen=True)
class Unpacked:
    """256 columns of one row: four vectors of 64 codes in column order; scale and bias per group (8 or 16 lanes)."""

    codes: Sequence[Vec]
    scale: Vec
    bias: Vec | None


class WeightType:
    """A quantized type. Subclasses set the class attributes and unpack 256 columns (`unpack`)."""

    block = 256  # columns in a block
    block_bytes = 0
    group = 32  # columns that share a scale
    bits = 8  # bits of a code
    offset: int | None = None  # fixed zero point (a power of two), None: the type stores its own bias

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        """The 256 columns whose blocks start at address `at`."""
        raise TypeError(f"{cls.__name__} does not say how it unpacks")

    @classmethod
    def bias_of(cls, e: Emitter, scale: Vec, bias: Vec | None) -> Vec:
        """The bias as a vector, also for types with a fixed zero point."""
        return bias if bias is not None else scale * float(-(cls.offset or 0))


class Block32(WeightType):
    """A type with blocks of 32 columns: says how one block unpacks; eight of them make 256 columns."""

    block = 32

    @classmethod
    def block_codes(cls, e: Emitter, at: Sequence[ir.Value]) -> Vec:
        """The codes of one or two blocks, 32 each."""
        raise TypeError(f"{cls.__name__} does not say where its codes are")

    @classmethod
    def block_fields(cls, e: Emitter, at: ir.Value) -> list[Vec]:
        """The scalars of a block that make its scale and bias, undecoded."""
        return [e.load(I16, 0, at)]

    @classmethod
    def scales(cls, e: Emitter, fields: list[Vec]) -> tuple[Vec, Vec | None]:
        """Scale and bias from vectors of those scalars."""
        return e.half_to_float(fields[0]), None

    @classmethod
    def unpack(cls, e: Emitter, at: ir.Value) -> Unpacked:
        blocks = [e.at(at, i * cls.block_bytes) for i in range(8)]
        codes = [cls.block_codes(e, blocks[i : i + 2]) for i in (0, 2, 4, 6)]
        fields = [cls.block_fields(e, block) for block in blocks]
        scale, bias = cls.scales(e, [e.gather(column) for column in zip(*fields, strict=True)])
        return Unpacked(codes, scale, bias)


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


def loads(e: Emitter, at: Sequence[ir.Value], offset: int, n: int) -> list[Vec]:
    """n bytes from each address."""
    return [e.load(I8, n, one, offset) for one in at]


def single_block(kind: type[Block32], e: Emitter, at: ir.Value) -> tuple[Vec, Vec, Vec]:
    """One block of 32 columns: codes, scale and bias as vectors of one lane each doubled to 8 (for row tails)."""
    fields = [e.splat(field, 8) for field in kind.block_fields(e, at)]
    scale, bias = kind.scales(e, fields)
    return kind.block_codes(e, [at]), scale, kind.bias_of(e, scale, bias)


__all__ = ["F32", "I8", "I16", "I32", "SUPER", "Block32", "Unpacked", "WeightType", "loads", "nibbles", "single_block"]
