"""Words that several threads read and write at once. A word is an int64 at an address that is a multiple of 8."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from .emit import I64, Emitter, Vec
from .types import address, emitted

i64 = types.int64


def _word(e: Emitter, at: Vec) -> ir.Value:
    return e.b.inttoptr(at.ll, I64.as_pointer())


@emitted(i64, address)
def atomic_load(e: Emitter, at: Vec) -> Vec:
    return Vec(e, e.b.load_atomic(_word(e, at), "acquire", 8, typ=I64))


@emitted(types.void, address, i64)
def atomic_store(e: Emitter, at: Vec, value: Vec) -> None:
    e.b.store_atomic(value.ll, _word(e, at), "seq_cst", 8)


@emitted(i64, address, i64)
def atomic_add(e: Emitter, at: Vec, value: Vec) -> Vec:
    """Adds and returns what was there before."""
    return Vec(e, e.b.atomic_rmw("add", _word(e, at), value.ll, "seq_cst"))


@emitted(i64, address, i64)
def atomic_swap(e: Emitter, at: Vec, value: Vec) -> Vec:
    return Vec(e, e.b.atomic_rmw("xchg", _word(e, at), value.ll, "seq_cst"))


@emitted(i64, address)
def glance(e: Emitter, at: Vec) -> Vec:
    """What a word holds, without an order between this and other memory: misses of several words overlap."""
    return Vec(e, e.b.load_atomic(_word(e, at), "monotonic", 8, typ=I64))


@emitted(i64, address, i64)
def draw(e: Emitter, at: Vec, value: Vec) -> Vec:
    """`atomic_add` for tickets: each is given once, but nothing is promised about other memory."""
    return Vec(e, e.b.atomic_rmw("add", _word(e, at), value.ll, "monotonic"))
