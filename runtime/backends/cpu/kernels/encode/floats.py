"""Floats of 16 bits: F16 BF16. The definition: `formats/quants/floats.py`.

A weight is a block there, and shares nothing with others. Here 32 are a group, and are taken as they lie in memory.
What becomes of NaN does not matter: a batch that holds one is bad (kernel.py), and NumPy encodes it.
"""

from __future__ import annotations

from ...simd.emit import F32, I16, I32, Vec
from .encoder import LANES, Batch, Encoder


class _Float(Encoder):
    block_bytes = 64  # of a group

    @classmethod
    def encode(cls, b: Batch) -> None:
        e, (out, _) = b.e, b.blocks()[0]
        for i in range(0, cls.size * LANES, LANES):
            e.store(cls.rounded(e.load(F32, LANES, b.x, 4 * i)), out, 2 * i)

    @classmethod
    def rounded(cls, x: Vec) -> Vec:
        """float32 to 16 bits (element I16)."""
        raise TypeError(f"{cls.__name__} does not say how it rounds")


class F16(_Float):
    @classmethod
    def rounded(cls, x: Vec) -> Vec:
        return x.e.float_to_half(x)


class BF16(_Float):
    @classmethod
    def rounded(cls, x: Vec) -> Vec:
        e, bits = x.e, x.e.bitcast(x, I32, x.n)
        return e.truncate((bits + ((bits >> 16 & 1) + 0x7FFF)) >> 16, I16)
