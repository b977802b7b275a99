"""AMX: eight tile registers of 16 rows of 64 bytes, and the product of two tiles of bfloat16 added to one of float32.

A tile register is a number in the instruction, not a value that LLVM allocates: who uses them says which. Every tile is
full (16 x 64 bytes), so one configuration serves all; it belongs to the thread and must be released at the end, or the
system saves eight kilobytes at each switch of threads.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from .emit import I8, I16, I32, I64, Emitter, Vec
from .types import address, emitted

ROWS = 16  # of a tile; also float32 in one of its rows
LINE = 64  # bytes of a row of a tile
BYTES = 1024  # of a tile
_VOID = ir.VoidType()


def _call(e: Emitter, name: str, *arguments: ir.Value) -> None:
    from numba.core import cgutils

    kind = ir.FunctionType(_VOID, [a.type for a in arguments])
    e.b.call(cgutils.get_or_insert_function(e.b.module, kind, f"llvm.x86.{name}"), list(arguments))


def _tile(number: int) -> ir.Value:
    return ir.Constant(I8, number)


def _pointer(e: Emitter, at: ir.Value) -> ir.Value:
    return e.b.inttoptr(at, I8.as_pointer())


def clear(e: Emitter, tile: int) -> None:
    _call(e, "tilezero", _tile(tile))


def load(e: Emitter, tile: int, at: ir.Value) -> None:
    """1 KB that lies in one piece."""
    _call(e, "tileloadd64", _tile(tile), _pointer(e, at), ir.Constant(I64, 64))


def store(e: Emitter, tile: int, at: ir.Value) -> None:
    _call(e, "tilestored64", _tile(tile), _pointer(e, at), ir.Constant(I64, 64))


def multiply(e: Emitter, total: int, a: int, b: int) -> None:
    """total[m, n] += a[m, k] b[k, n] for 32 k: `a` holds rows of bfloat16, `b` pairs (2k, 2k + 1) of one n together."""
    _call(e, "tdpbf16ps", _tile(total), _tile(a), _tile(b))


@emitted(types.void, address)
def configure(e: Emitter, at: Vec) -> None:
    """Give all eight tiles their full size; 64 bytes at `at` are overwritten."""
    e.store(e.const(I8, [1] + [0] * 15 + [64, 0] * 8 + [0] * 16 + [ROWS] * 8 + [0] * 8), at.ll)
    _call(e, "ldtilecfg", _pointer(e, at.ll))


@emitted(types.void, types.int64)
def release(e: Emitter, _: Vec) -> None:
    _call(e, "tilerelease")


def transposed(v: list[Vec]) -> list[Vec]:
    """As many vectors (a power of two) as they have lanes as a matrix, turned over its diagonal."""
    e, n = v[0].e, len(v)
    distance = 1
    while distance < n:
        low = [i if not i & distance else n + i - distance for i in range(n)]
        high = [i + distance if not i & distance else n + i for i in range(n)]
        mixed: list[Vec] = list(v)
        for i in range(n):
            if not i & distance:
                mixed[i] = e.shuffle(v[i], v[i | distance], low)
                mixed[i | distance] = e.shuffle(v[i], v[i | distance], high)
        v, distance = mixed, 2 * distance
    return v


class _Brain(ir.types._BaseFloatType):  # type: ignore[misc]
    """bfloat16, which llvmlite does not know."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"

    def format_constant(self, value: float) -> str:
        raise TypeError(f"no bfloat16 constants: {value}")


_Brain._create_instance()


def brain_pairs(e: Emitter, low: Vec, high: Vec) -> Vec:
    """Two vectors of 16 float32, one after the other, rounded to bfloat16 (nearest even): int32 lanes of two each."""
    kind = ir.VectorType(_Brain(), 32)
    return e.bitcast(e.call("llvm.x86.avx512bf16.cvtne2ps2bf16.512", kind, high, low), I32, 16)


def multiply_pairs(e: Emitter, total: Vec, a: Vec, b: Vec) -> Vec:
    """total + a * b + a' * b' of the two bfloat16 in each lane of a and b (AVX-512 BF16: no tile registers needed)."""
    kind = ir.VectorType(_Brain(), 32)
    pairs = [Vec(e, e.b.bitcast(v.ll, kind)) for v in (a, b)]
    return e.call("llvm.x86.avx512bf16.dpbf16ps.512", total.ll.type, total, *pairs)


def brain_value(e: Emitter, pairs: Vec) -> tuple[Vec, Vec]:
    """What brain_pairs was given, rounded: for the part that the rounding dropped."""
    words = e.bitcast(pairs, I16, 32)
    return e.brain_to_float(words.take(range(16))), e.brain_to_float(words.take(range(16, 32)))
