"""Codes of fixed levels: IQ4_NL IQ4_XS. The definition: `formats/quants/iq.py`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from llvmlite import ir

from ......formats.quants.iq import IQ4_LEVELS
from ...simd.emit import F32, I8, I16, I32, I64, Emitter, Vec
from .basic import Block32
from .encoder import LANES, Batch, Encoder
from .k import signed_largest
from .lanes import byte_rows
from .search import NOTHING, Codes, nearest, negated, signed_extreme

LEVELS = [int(level) for level in IQ4_LEVELS]
# A number belongs to the higher of two levels from the middle between them on: so near it, differences are exact.
_MIDDLES = [(a + b) / 2 for a, b in pairwise(LEVELS)]


class IQ4_NL(Block32):
    block_bytes, power_of, factor = 18, "block", 2.0

    @classmethod
    def encode(cls, b: Batch) -> None:
        scale, g = _scales(b), b.g
        inverse = _inverse(scale)
        cls.store(b, lambda j: _code(inverse * g.x(j)), b.half(scale))


class IQ4_XS(Encoder):
    per, block_bytes, power_of, factor = 8, 136, "block", 2.0

    @classmethod
    def encode(cls, b: Batch) -> None:
        e, g = b.e, b.g
        scale = _scales(b)
        d = negated(signed_largest(scale, cls.per)) / 32.0
        six = e.limited(nearest(_inverse(d) * scale), -32, 31)
        inverse = _inverse(d * e.to_float(six))
        cls.store(b, lambda j: _code(inverse * g.x(j)), six + 32, b.half(d))

    @classmethod
    def store(cls, b: Batch, codes: Codes, six: Vec, d: Vec) -> None:
        e = b.e
        rows = byte_rows([codes(j) | codes(j + 16) << 4 for j in range(16)])
        for at, group in b.blocks():
            own = six.take(range(group, group + cls.per))
            low, high = own & 15, (own >> 4) << e.const(I32, range(0, 16, 2))
            e.store(d.lane(group), at)
            e.store(e.truncate(e.call("llvm.vector.reduce.or.v8i32", I32, high), I16), at, 2)
            e.store(e.truncate(low.take(range(0, 8, 2)) | low.take(range(1, 8, 2)) << 4, I8), at, 4)
            for k in range(cls.per):
                e.store(rows[group + k], at, 8 + 16 * k)


def _scales(b: Batch) -> Vec:
    """The best of 16 scales of each group."""
    e, g = b.e, b.g
    if b.weighted:
        b.weigh()
    else:
        g.set_costs(lambda x, _: x * x)
    top, zero = signed_extreme(g), e.zero(F32, LANES)

    def fit(inverse: Vec) -> list[Vec]:
        def terms(j: ir.Value) -> list[Vec]:
            q = _level(inverse * g.x(j))
            by_x = g.cost(j) * q
            return [by_x * g.x(j), by_x * q]

        return g.sums(2, terms)

    def one_more(i: ir.Value, carried: list[Vec]) -> list[Vec]:
        scale, best = carried
        step = e.to_float(e.splat(Vec(e, e.b.trunc(i, I32)), LANES)) - 7.0
        by_x, by_level = fit((step + float(LEVELS[0])) / top)
        better = e.less(zero, by_level) & e.less(best * by_level, by_x * by_x)
        scale = e.select(better, by_x / by_level, scale)
        return [scale, e.select(better, scale * by_x, best)]

    by_x, by_level = fit(e.like(top, 1.0) / (negated(top) / float(LEVELS[0])))
    scale = e.select(e.less(zero, by_level), by_x / by_level, zero)
    scale, _ = e.loop(ir.Constant(I64, 15), [scale, scale * by_x], one_more)
    b.must_be_numbers(scale)
    return e.select(e.less(e.absolute(top), NOTHING), zero, scale)


def _level(x: Vec) -> Vec:
    """The level next to each number, as float32."""
    return climbed(x, _MIDDLES, [x.e.like(x, level) for level in LEVELS])


def _code(x: Vec) -> Vec:
    """Its number, as int32."""
    return climbed(x, _MIDDLES, [x.e.const(I32, [k] * x.n) for k in range(len(LEVELS))])


def climbed(x: Vec, steps: Sequence[float], values: Sequence[Vec]) -> Vec:
    """The first of the values, or that behind the last of the rising steps that a number has reached."""
    value = values[0]
    for step, higher in zip(steps, values[1:], strict=True):
        value = x.e.select(x.e.compare(x, ">=", step), higher, value)
    return value


def _inverse(d: Vec) -> Vec:
    e: Emitter = d.e
    return e.select(e.compare(d, "!=", 0.0), e.like(d, 1.0) / d, e.like(d, 0.0))
