"""Float weights: F32 F16 BF16, widened to float32 sixteen at a time."""

from __future__ import annotations

from llvmlite import ir

from ...simd.emit import F32, I16, Emitter, Vec


class FloatType:
    """A float type: bytes of an element, and how n of them load."""

    size = 4

    @classmethod
    def load(cls, e: Emitter, at: ir.Value, n: int) -> Vec:
        return e.load(F32, n, at)


class F16(FloatType):
    size = 2

    @classmethod
    def load(cls, e: Emitter, at: ir.Value, n: int) -> Vec:
        return e.half_to_float(e.load(I16, n, at))


class BF16(FloatType):
    size = 2

    @classmethod
    def load(cls, e: Emitter, at: ir.Value, n: int) -> Vec:
        return e.brain_to_float(e.load(I16, n, at))
