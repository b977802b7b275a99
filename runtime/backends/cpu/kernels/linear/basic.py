"""Blocks of 32: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0. Layouts: `formats/quants/basic.py`."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ...simd.emit import Emitter, Vec
from .blocks import Affine, Block32, Nibbles
from .weights import loads


class Q4_0(Nibbles):
    block_bytes, bits, offset = 18, 4, 8


class Q4_1(Affine, Nibbles):
    block_bytes, bits, codes_at = 20, 4, 4


class Q5_0(Nibbles):
    block_bytes, bits, offset, fifth_at, codes_at = 22, 5, 16, 2, 6


class Q5_1(Affine, Nibbles):
    block_bytes, bits, fifth_at, codes_at = 24, 5, 4, 8


class Q8_0(Block32):
    block_bytes, bits, offset = 34, 8, 128

    @classmethod
    def block_codes(cls, e: Emitter, at: Sequence[ir.Value]) -> Vec:
        return e.concat(loads(e, at, 2, 32)) ^ 0x80
