"""The instructions that kernels written in Numba use on vectors of 16 float32. One row each; `emit.py` knows LLVM."""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from . import math
from .emit import F32, I16, I32, Emitter, Vec
from .types import address, emitted, f32x16

f32 = types.float32


@emitted(f32x16, address)
def load(e: Emitter, at: Vec) -> Vec:
    """16 float32 at any alignment."""
    return e.load(F32, 16, at.ll)


@emitted(f32x16, address)
def load_half(e: Emitter, at: Vec) -> Vec:
    """16 float16, widened."""
    return e.half_to_float(e.load(I16, 16, at.ll))


@emitted(types.void, address, f32x16)
def store(e: Emitter, at: Vec, value: Vec) -> None:
    e.store(value, at.ll)


@emitted(types.void, address, f32x16)
def store_half(e: Emitter, at: Vec, value: Vec) -> None:
    """16 float32 rounded to float16."""
    e.store(e.float_to_half(value), at.ll)


@emitted(f32, address)
def load_f32(e: Emitter, at: Vec) -> Vec:
    return e.load(F32, 0, at.ll)


@emitted(f32, address)
def load_f16(e: Emitter, at: Vec) -> Vec:
    """One float16, widened."""
    return e.half_to_float(e.splat(e.load(I16, 0, at.ll), 4)).lane(0)


@emitted(types.void, address, f32)
def store_f32(e: Emitter, at: Vec, value: Vec) -> None:
    e.store(value, at.ll)


@emitted(types.void, address, f32)
def store_f16(e: Emitter, at: Vec, value: Vec) -> None:
    """One float32 rounded to float16."""
    e.store(e.float_to_half(e.splat(value, 4)).lane(0), at.ll)


@emitted(types.int32, address)
def load_i32(e: Emitter, at: Vec) -> Vec:
    return e.load(I32, 0, at.ll)


@emitted(types.void, address, types.int32)
def store_i32(e: Emitter, at: Vec, value: Vec) -> None:
    e.store(value, at.ll)


@emitted(types.void, address, types.int64)
def store_i64(e: Emitter, at: Vec, value: Vec) -> None:
    e.store(value, at.ll)


@emitted(f32x16, f32)
def splat(e: Emitter, value: Vec) -> Vec:
    """One number in all lanes."""
    return e.splat(value, 16)


@emitted(f32x16, f32x16, f32x16, f32x16)
def fma(e: Emitter, x: Vec, y: Vec, z: Vec) -> Vec:
    """x * y + z"""
    return e.fma(x, y, z)


@emitted(f32, f32, f32)
def plus(e: Emitter, x: Vec, y: Vec) -> Vec:
    """x + y of two rounded numbers: sums that y came from are not rearranged. So a product that adds in its epilogue
    gives the bits that an addition on its own gives.
    """
    return e.plus(x, y)


@emitted(f32x16, f32x16, f32x16)
def times(e: Emitter, x: Vec, y: Vec) -> Vec:
    """x * y rounded to what a store and a load would give, likewise: for the last product before an epilogue."""
    return e.times(x, y)


@emitted(f32x16, f32x16, f32x16)
def maximum(e: Emitter, x: Vec, y: Vec) -> Vec:
    return e.maximum(x, y)


@emitted(f32x16, f32x16)
def absolute(e: Emitter, x: Vec) -> Vec:
    return e.absolute(x)


@emitted(f32, f32x16)
def sum_of(e: Emitter, x: Vec) -> Vec:
    """All lanes added."""
    return e.sum(x)


@emitted(f32, f32x16)
def max_of(e: Emitter, x: Vec) -> Vec:
    """The largest lane."""
    return e.largest(x)


@emitted(f32x16, f32x16)
def exp(e: Emitter, x: Vec) -> Vec:
    return math.exp(e, x)


@emitted(f32x16, f32x16)
def swap_pairs(e: Emitter, x: Vec) -> Vec:
    """Each even lane changes places with the odd lane after it."""
    return x.take([i ^ 1 for i in range(16)])


@emitted(f32x16, f32x16)
def exp_negative(e: Emitter, x: Vec) -> Vec:
    return math.exp_negative(e, x)


@emitted(f32x16, f32x16)
def sigmoid(e: Emitter, x: Vec) -> Vec:
    return math.sigmoid(e, x)


@emitted(f32x16, f32x16)
def silu(e: Emitter, x: Vec) -> Vec:
    return math.silu(e, x)


@emitted(f32x16, f32x16)
def tanh(e: Emitter, x: Vec) -> Vec:
    return math.tanh(e, x)


@emitted(f32x16, f32x16)
def gelu(e: Emitter, x: Vec) -> Vec:
    return math.gelu(e, x)


@emitted(f32x16, f32x16)
def gelu_tanh(e: Emitter, x: Vec) -> Vec:
    return math.gelu_tanh(e, x)


def _view(dtype: Any) -> Any:
    kind = types.Array(dtype, 1, "C")

    @intrinsic
    def view(typing_context, at, n):  # type: ignore[no-untyped-def]
        """The n elements at an address as a one-dimensional array (bounds-checked under NUMBA_BOUNDSCHECK=1)."""

        def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            array = make_array(kind)(context, builder)
            size = context.get_constant(types.intp, dtype.bitwidth // 8)
            data = builder.inttoptr(values[0], array.data.type)
            populate_array(array, data=data, shape=[values[1]], strides=[size], itemsize=size, meminfo=None)
            return array._getvalue()

        return kind(types.uint64, types.int64), generate

    return view


byte_view = _view(types.uint8)
f32_view = _view(types.float32)
i32_view = _view(types.int32)
