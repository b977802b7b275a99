"""Four-bit floats: MXFP4 NVFP4. Layouts: `formats/quants/fp4.py`."""

from __future__ import annotations

from llvmlite import ir

from ......formats.quants.fp4 import E2M1_DOUBLED
from ...simd.dot import lookup16
from ...simd.emit import F32, Emitter, Vec
from .blocks import LongerBlocks, Nibbles
from .weights import I8, I32, Unpacked, loads, nibbles

# Twice the value of each code, moved up by 16 so that it is unsigned; the scale is halved to match.
_LEVELS = [16 + int(level) for level in E2M1_DOUBLED]


class MXFP4(Nibbles):
    block_bytes, bits, offset, levels, codes_at = 17, 5, 16, _LEVELS, 1
    fields = ((0, I8),)

    @classmethod
    def scales(cls, e: Emitter, fields: list[Vec]) -> tuple[Vec, Vec | None]:
        return power_of_two(e, e.widen_unsigned(fields[0], I32)), None


class NVFP4(LongerBlocks):
    block, block_bytes, group, bits, offset = 64, 36, 16, 5, 16

    @classmethod
    def unpack_blocks(cls, e: Emitter, at: ir.Value, count: int) -> Unpacked:
        blocks = [e.at(at, cls.block_bytes * i) for i in range(count)]
        codes = []
        for block in blocks:
            groups = [e.at(block, 4 + 8 * k) for k in range(4)]
            codes.append(lookup16(e, _LEVELS, nibbles(e, loads(e, groups, 0, 8))))
        scales = e.bitcast(e.gather([e.load(I32, 0, block) for block in blocks]), I8, 4 * count)
        return Unpacked(codes, half_of_e4m3(e, e.widen_unsigned(scales, I32) & 127), None)


def half_of_e4m3(e: Emitter, code: Vec) -> Vec:
    """Half the value of unsigned E4M3, int32 lanes below 128; 127 is zero."""
    small = e.to_float(code) * 2.0**-10
    normal = e.bitcast((code << 20) + (119 << 23), F32, code.n)
    value = e.select(e.compare(code, "<", 8), small, normal)
    return e.select(e.compare(code, "==", 127), e.like(value, 0.0), value)


def power_of_two(e: Emitter, byte: Vec) -> Vec:
    """2^(byte - 128): the exponent field, or a subnormal below byte 2."""
    subnormal = e.like(byte, 0x00200000) << byte
    bits = e.select(e.compare(byte, "<", 2), subnormal, (byte - 1) << 23)
    return e.bitcast(bits, F32, byte.n)
