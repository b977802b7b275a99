"""Four-bit floats: MXFP4. Layout: `formats/quants/fp4.py`."""

from __future__ import annotations

from ...simd.emit import F32, Emitter, Vec
from .blocks import Nibbles
from .weights import I8, I32

# Twice the value of each code, moved up by 16 so that it is unsigned; the scale is halved to match.
_LEVELS = [16 + v for v in (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)]


class MXFP4(Nibbles):
    block_bytes, bits, offset, levels, codes_at = 17, 5, 16, _LEVELS, 1
    fields = ((0, I8),)

    @classmethod
    def scales(cls, e: Emitter, fields: list[Vec]) -> tuple[Vec, Vec | None]:
        """2^(byte - 128): the exponent field, or a subnormal below byte 2."""
        exponent = e.widen_unsigned(fields[0], I32)
        small = Vec(e, e.b.icmp_unsigned("<", exponent.ll, e.like(exponent, 2).ll))
        subnormal = e.like(exponent, 0x00200000) << exponent
        bits = e.select(small, subnormal, (exponent - 1) << 23)
        return e.bitcast(bits, F32, exponent.n), None
