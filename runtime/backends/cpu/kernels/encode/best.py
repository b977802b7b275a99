"""Encoders that search further than ggml's. The definition: `formats/quants/best.py`, which says more.

`searched` makes one from that of a type: what this is about to store is where the search begins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from ......formats.gguf.types import GGMLType
from ......formats.quants.best import LEAST, LOWER, TURNS
from ......formats.quants.forms import FORMS, Form
from ...simd.emit import F32, I32, I64, Vec
from ..linear.fp4 import half_of_e4m3, power_of_two
from .encoder import LANES, Batch, Encoder
from .fp4 import to_e4m3
from .iq import climbed
from .search import Codes, nearest, reciprocal


def searched(kind: type[Encoder]) -> type[Encoder]:
    """The encoder that stores what the search finds."""
    form = SCALES.get(kind.__name__, Half)(FORMS[GGMLType[kind.__name__]])

    def store(cls: type[Encoder], b: Batch, codes: Codes, *scales: Vec) -> None:
        kind.store(b, *_improved(b, form, codes, scales))

    return type(kind.__name__, (kind,), {"store": classmethod(store)})


class Half:
    """What a type stores of a scale: a float16. The others are subclasses."""

    def __init__(self, form: Form) -> None:
        self.levels, self.in_order = form.levels, [float(level) for level in form.in_order]
        self.is_whole, self.has_minimum = form.is_whole, form.has_minimum
        self.zero = 0 if form.width == 8 else -int(self.levels[0])  # the code of 0, where levels are whole
        tries = [(factor / form.top, shift) for factor, shift in form.tries]
        self.n_tries, self.tries = len(tries), np.array(tries, np.float32).tobytes()
        self.middles = [(a + b) / 2 for a, b in zip(self.in_order, self.in_order[1:])]  # noqa: B905

    def read(self, stored: Vec, *_: Vec) -> Vec:
        """The scale."""
        return stored.e.half_to_float(stored)

    def put(self, scale: Vec, *_: Vec) -> Vec:
        """What is stored of a scale. The last arguments of both: what else is stored."""
        return scale.e.float_to_half(scale)

    def nearest_level(self, x: Vec) -> Vec:
        e = x.e
        if self.is_whole:
            return e.to_float(nearest(e.maximum(e.minimum(x, self.in_order[-1]), self.in_order[0])))
        return climbed(x, self.middles, [e.like(x, level) for level in self.in_order])

    def nearest_code(self, x: Vec) -> Vec:
        e = x.e
        if self.is_whole:
            return e.to_integer(self.nearest_level(x)) + self.zero
        codes = [self.levels.index(level) for level in self.in_order]
        return climbed(x, self.middles, [e.const(I32, [code] * x.n) for code in codes])

    def level(self, code: Vec) -> Vec:
        e = code.e
        if self.is_whole:
            return e.to_float(code - self.zero)
        numbers = range(1, len(self.levels))
        return climbed(code, numbers, [e.const(F32, [level] * code.n) for level in self.levels])


class PowerOfTwo(Half):
    def read(self, stored: Vec, *_: Vec) -> Vec:
        return power_of_two(stored.e, stored)

    def put(self, scale: Vec, *_: Vec) -> Vec:
        e = scale.e
        bits = e.bitcast(scale, I32, scale.n) & 0x7FFFFFFF
        return e.limited(((bits + 0x400000) >> 23) + 1, 0, 254)


class SmallFloat(Half):
    def read(self, stored: Vec, *_: Vec) -> Vec:
        return half_of_e4m3(stored.e, stored)

    def put(self, scale: Vec, *_: Vec) -> Vec:
        return to_e4m3(scale * 2.0)


class PartOfBlock(Half):
    def read(self, stored: Vec, *others: Vec) -> Vec:
        return stored.e.half_to_float(others[0]) * stored.e.to_float(stored - 32)

    def put(self, scale: Vec, *others: Vec) -> Vec:
        e = scale.e
        number = scale * reciprocal(e.half_to_float(others[0]))
        return nearest(e.maximum(e.minimum(number, 31.0), -32.0)) + 32


SCALES: dict[str, type[Half]] = {"MXFP4": PowerOfTwo, "NVFP4": SmallFloat, "IQ4_XS": PartOfBlock}


def _improved(b: Batch, form: Half, codes: Codes, scales: tuple[Vec, ...]) -> tuple[Any, ...]:
    """Codes and what is stored of scales and minima, with a lower error where there is one."""
    e, g, others = b.e, b.g, scales[1 + form.has_minimum :]  # of which IQ4_XS has one: the scale of the block
    b.put_costs()

    def stored(scale: Vec, minimum: Vec) -> tuple[Vec, Vec]:
        """As they will be read."""
        return form.read(form.put(scale, *others), *others), _half(minimum) if form.has_minimum else minimum

    def one_try(i: ir.Value, carried: list[Vec]) -> list[Vec]:
        at = e.index(e.constant(form.tries), i, 8)
        factor, shift = (e.splat(e.load(F32, 0, at, 4 * k), LANES) for k in (0, 1))
        first = [span * factor, origin + span * shift if form.has_minimum else origin]
        return e.loop(ir.Constant(I64, TURNS), [*first, *carried], one_turn)[2:]

    def one_turn(_: ir.Value, carried: list[Vec]) -> list[Vec]:
        scale, minimum, *best = carried
        scale, minimum = stored(scale, minimum)
        units = _units(b, form, minimum, reciprocal(scale))
        error, *sums = _sums(b, form, scale, minimum, lambda j: form.nearest_level(units(j)))
        better = e.less(error, best[2] * float(LOWER)) & e.less(e.like(error, float(LEAST)), best[2])
        found = (scale, minimum, error)
        kept = [e.select(better, new, old) for new, old in zip(found, best, strict=True)]
        return [*_refitted(form, scale, minimum, *sums, *whole), *kept]

    zero = e.zero(F32, LANES)
    start = form.read(scales[0], *others), e.half_to_float(scales[1]) if form.has_minimum else zero
    whole = g.sums(2, lambda j: [g.cost(j), g.cost(j) * g.x(j)]) if form.has_minimum else []
    span, origin = _reach(b, form)
    least, *_ = _sums(b, form, *start, lambda j: form.level(codes(j)))
    *best, error = e.loop(ir.Constant(I64, form.n_tries), [*start, least], one_try)
    is_new, units = e.less(error, least), _units(b, form, best[1], reciprocal(best[0]))

    def put_code(j: ir.Value, _: list[Vec]) -> list[Vec]:
        g.put_code(j, e.select(is_new, form.nearest_code(units(j)), codes(j)))
        return []

    g.each([], put_code)
    made = [form.put(best[0], *others), *([e.float_to_half(best[1])] if form.has_minimum else [])]
    return g.code, *(e.select(is_new, new, old) for new, old in zip(made, scales, strict=False)), *others


def _half(x: Vec) -> Vec:
    return x.e.half_to_float(x.e.float_to_half(x))


def _units(b: Batch, form: Half, minimum: Vec, inverse: Vec) -> Codes:
    """Weights in units of a scale."""
    return lambda j: (b.g.x(j) - minimum if form.has_minimum else b.g.x(j)) * inverse


def _sums(b: Batch, form: Half, scale: Vec, minimum: Vec, level: Codes) -> list[Vec]:
    """The error, and over w times level those of x, of the level, and of 1 where there is a minimum."""

    def terms(j: ir.Value) -> list[Vec]:
        x, w, q = b.g.x(j), b.g.cost(j), level(j)
        off = (q * scale + minimum if form.has_minimum else q * scale) - x
        by_1 = w * q
        return [w * off * off, by_1 * x, by_1 * q, *([by_1] if form.has_minimum else [])]

    return b.g.sums(3 + form.has_minimum, terms)


def _reach(b: Batch, form: Half) -> tuple[Vec, Vec]:
    e, g = b.e, b.g
    if not form.has_minimum:
        zero = e.zero(F32, LANES)
        return g.each([zero], lambda j, most: [e.maximum(e.absolute(g.x(j)), most[0])])[0], zero
    least, most = g.each(
        [g.x(0), g.x(0)], lambda j, ends: [e.minimum(g.x(j), ends[0]), e.maximum(g.x(j), ends[1])]
    )
    return most - least, least


def _refitted(form: Half, scale: Vec, minimum: Vec, by_x: Vec, by_level: Vec, *sums: Vec) -> list[Vec]:
    """`sums`: where there is a minimum, of w * level, and of all w and w * x."""
    e = scale.e

    def is_number(x: Vec) -> Vec:
        return e.less(e.absolute(x), float("inf"))

    if not form.has_minimum:
        other = by_x / by_level
        return [e.select(is_number(other), other, scale), minimum]
    all_1, all_w, all_x = sums
    determinant = all_w * by_level - all_1 * all_1
    other = (all_w * by_x - all_x * all_1) / determinant
    low = (by_level * all_x - all_1 * by_x) / determinant
    is_found = is_number(other) & is_number(low)
    return [e.select(is_found, other, scale), e.select(is_found, low, minimum)]
