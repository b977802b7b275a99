"""How scales are found. Each function is the twin of that of its name in `formats/quants/search.py`, which says more.

Scales are float32 vectors, a lane for each group. Codes are functions of a line's number, from 0.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ...simd.emit import F32, I32, I64, Emitter, Vec
from .encoder import LANES
from .lanes import Groups, Index

NOTHING = 1e-15
_MAGIC = 12582912.0

Codes = Callable[[Index], Vec]  # int32 [16]


def nearest(x: Vec) -> Vec:
    e = x.e
    return (e.bitcast(x + _MAGIC, I32, x.n) & 0x7FFFFF) - 0x400000


def negated(x: Vec) -> Vec:
    """-x, of zero as well, where 0 - x has the wrong sign."""
    return Vec(x.e, x.e.b.fneg(x.ll))


def signed_extreme(g: Groups) -> Vec:
    e, zero = g.e, g.e.zero(F32, LANES)

    def body(j: ir.Value, carried: list[Vec]) -> list[Vec]:
        x = g.x(j)
        larger = e.less(carried[0], e.absolute(x))
        return [e.select(larger, e.absolute(x), carried[0]), e.select(larger, x, carried[1])]

    return g.each([zero, zero], body)[1]


def reciprocal(d: Vec, times: float = 1.0) -> Vec:
    """times / d, or 0 where that is infinite."""
    e = d.e
    inverse = e.like(d, times) / d
    return e.select(e.compare(e.absolute(inverse), "==", float("inf")), e.like(d, 0.0), inverse)


def symmetric(g: Groups, levels: int) -> tuple[Vec, Codes]:
    e, top = g.e, signed_extreme(g)
    zero = e.zero(F32, LANES)
    is_zero = e.less(e.absolute(top), NOTHING)

    def code(inverse: Vec, j: Index) -> Vec:
        return e.limited(nearest(inverse * g.x(j)), -levels, levels - 1)

    def moments(inverse: Vec) -> list[Vec]:
        return _moments(g, lambda j: code(inverse, j))

    def one_more(i: ir.Value, carried: list[Vec]) -> list[Vec]:
        inverse, scale, best = carried
        step = _step(e, i, 9)
        other = negated(e.like(step, levels) + e.like(step, 0.1) * step) / top
        by_x, by_code = moments(other)
        better = e.less(zero, by_code) & e.less(best * by_code, by_x * by_x)
        scale = e.select(better, by_x / by_code, scale)
        return [e.select(better, other, inverse), scale, e.select(better, scale * by_x, best)]

    inverse = e.like(top, -levels) / top
    by_x, by_code = moments(inverse)
    scale = e.select(e.compare(by_code, "!=", 0.0), by_x / by_code, zero)
    inverse, scale, _ = e.loop(ir.Constant(I64, 18), [inverse, scale, scale * by_x], one_more)
    nothing = e.zero(I32, LANES)
    return (
        e.select(is_zero, zero, scale),
        lambda j: e.select(is_zero, nothing, code(inverse, j) + levels),
    )


def _step(e: Emitter, i: ir.Value, most: int) -> Vec:
    """Of the steps -most ... -1 and 1 ... most that of number i, as float32 in all lanes."""
    i32 = Vec(e, e.b.trunc(i, I32))
    return e.to_float(e.splat(e.select(e.compare(i32, "<", most), i32 - most, i32 - (most - 1)), LANES))


def symmetric_by_turns(g: Groups, levels: int) -> tuple[Vec, Codes]:
    """Costs are x * x. Codes are put into their lines."""
    e, top = g.e, signed_extreme(g)
    zero, inverse = e.zero(F32, LANES), e.like(top, -levels) / top
    _put_codes(g, lambda x: e.limited(nearest(inverse * x), -levels, levels - 1))
    by_x, by_code = _turns(
        g,
        *_moments(g, g.code),
        lambda new: e.limited(new, -levels, levels - 1),
        lambda _, after: e.less(zero, after),
    )
    is_zero, nothing = e.less(e.absolute(top), NOTHING), e.zero(I32, LANES)
    scale = e.select(e.less(zero, by_code), by_x / by_code, zero)
    return e.select(is_zero, zero, scale), lambda j: e.select(is_zero, nothing, g.code(j) + levels)


def positive(g: Groups, levels: int) -> tuple[Vec, Codes]:
    """Codes are put into their lines."""
    e, zero, one = g.e, g.e.zero(F32, LANES), g.e.const(F32, [1.0] * LANES)
    most = g.each([zero], lambda j, carried: [e.maximum(g.x(j), carried[0])])[0]

    def error(code: Callable[[Vec], Vec], scale: Vec) -> Vec:
        def terms(j: ir.Value) -> list[Vec]:
            off = g.x(j) - scale * e.to_float(code(g.x(j)))
            return [g.cost(j) * off * off]

        return g.sums(1, terms)[0]

    def one_more(i: ir.Value, carried: list[Vec]) -> list[Vec]:
        inverse, best = carried
        step = _step(e, i, 4)
        other = (e.like(step, 0.1) * step + e.like(step, levels)) / most
        found = error(lambda x: _at_most(nearest(other * x), levels), one / other)
        better = e.less(found, best)
        return [e.select(better, other, inverse), e.select(better, found, best)]

    inverse = e.like(most, levels) / most
    best = error(lambda x: nearest(inverse * x) & 255, one / inverse)
    inverse, _ = e.loop(ir.Constant(I64, 8), [inverse, best], one_more)
    _put_codes(g, lambda x: _at_most(nearest(inverse * x), levels))
    moments = _moments(g, g.code)
    _put_codes(g, lambda x: _at_most(nearest(inverse * x), levels) & 255)  # bytes, as C keeps them
    by_x, by_code = _turns(
        g, *moments, lambda new: _at_most(new, levels), lambda before, _: e.less(zero, before), mask=255
    )
    is_zero, nothing = e.less(most, NOTHING), e.zero(I32, LANES)
    scale = e.select(e.less(zero, by_code), by_x / by_code, zero)
    return e.select(is_zero, zero, scale), lambda j: e.select(is_zero, nothing, g.code(j))


def affine(
    g: Groups, levels: int, tries: tuple[float, float, int], *, by_magnitude: bool = False
) -> tuple[Vec, Vec, Codes]:
    e, zero, first = g.e, g.e.zero(F32, LANES), g.x(0)

    def ends(j: ir.Value, carried: list[Vec]) -> list[Vec]:
        least, most, all_w, all_x = carried
        x, w = g.x(j), g.cost(j)
        return [e.minimum(x, least), e.maximum(x, most), all_w + w, all_x + w * x]

    least, most, all_w, all_x = g.each([first, first, zero, negated(zero)], ends)  # -0 + x is x, also of -0
    least = e.select(e.less(zero, least), zero, least)
    is_flat = e.compare(most, "<=", least)

    def code(inverse: Vec, least: Vec, j: Index) -> Vec:
        return e.limited(nearest(inverse * (g.x(j) - least)), 0, levels)

    def error(scale: Vec, minimum: Vec) -> Vec:
        def terms(j: ir.Value) -> list[Vec]:
            off = scale * e.bitcast(g.code(j), F32, LANES) + minimum - g.x(j)
            return [g.cost(j) * (e.absolute(off) if by_magnitude else off * off)]

        return g.sums(1, terms)[0]

    def fit(inverse: Vec, least: Vec) -> list[Vec]:
        """Sums of w * code, w * code * code and w * code * x. The codes stay in their lines, as float32."""

        def terms(j: ir.Value) -> list[Vec]:
            q = e.to_float(code(inverse, least, j))
            g.put_code(j, e.bitcast(q, I32, LANES))
            by_1 = g.cost(j) * q
            return [by_1, by_1 * q, by_1 * g.x(j)]

        return g.sums(3, terms)

    def one_more(i: ir.Value, carried: list[Vec]) -> list[Vec]:
        scale, least, best, inverse, origin = carried
        step = e.to_float(e.splat(Vec(e, e.b.trunc(i, I32)), LANES))
        other = (e.like(step, tries[0]) + e.like(step, tries[1]) * step + e.like(step, levels)) / (most - least)
        by_1, by_code, by_x = fit(other, least)
        determinant = all_w * by_code - by_1 * by_1
        new_scale = (all_w * by_x - all_x * by_1) / determinant
        new_least = (by_code * all_x - by_1 * by_x) / determinant
        above = e.less(zero, new_least)
        new_scale, new_least = e.select(above, by_x / by_code, new_scale), e.select(above, zero, new_least)
        found = error(new_scale, new_least)
        better = e.less(zero, determinant) & e.less(found, best)
        pairs = ((new_scale, scale), (new_least, least), (found, best), (other, inverse), (least, origin))
        return [e.select(better, new, old) for new, old in pairs]

    inverse = e.like(most, levels) / (most - least)
    scale = e.like(most, 1.0) / inverse
    fit(inverse, least)
    carried = [scale, least, error(scale, least), inverse, least]
    scale, least, _, inverse, origin = e.loop(ir.Constant(I64, tries[2] + 1), carried, one_more)
    nothing = e.zero(I32, LANES)
    return (
        e.select(is_flat, zero, scale),
        negated(least),
        lambda j: e.select(is_flat, nothing, code(inverse, origin, j)),
    )


def _at_most(codes: Vec, levels: int) -> Vec:
    return codes.e.call("llvm.smin.v16i32", codes.ll.type, codes, codes.e.like(codes, levels))


def _put_codes(g: Groups, code: Callable[[Vec], Vec]) -> None:
    def body(j: ir.Value, _: list[Vec]) -> list[Vec]:
        g.put_code(j, code(g.x(j)))
        return []

    g.each([], body)


def _moments(g: Groups, code: Callable[[Index], Vec]) -> list[Vec]:
    """Sums of cost * x * code and of cost * code * code."""

    def terms(j: ir.Value) -> list[Vec]:
        q, w = g.e.to_float(code(j)), g.cost(j)
        return [w * g.x(j) * q, w * q * q]

    return g.sums(2, terms)


def _turns(
    g: Groups,
    by_x: Vec,
    by_code: Vec,
    limited: Callable[[Vec], Vec],
    allowed: Callable[[Vec, Vec], Vec],
    mask: int = -1,
) -> list[Vec]:
    """Five times through the codes in their lines: each becomes the best for the scale of all others, if that helps.

    Once a round changes nothing, later ones do not either; so nobody has to look for it.
    """
    e, zero = g.e, g.e.zero(F32, LANES)

    def one(j: ir.Value, carried: list[Vec]) -> list[Vec]:
        by_x, by_code = carried
        w, x, old = g.cost(j), g.x(j), g.code(j)
        q = e.to_float(old)
        rest_x, rest_code = by_x - w * x * q, by_code - w * q * q
        new = limited(nearest(x * rest_code / rest_x))
        q = e.to_float(new)
        new_x, new_code = rest_x + w * x * q, rest_code + w * q * q
        better = e.less(zero, rest_x) & e.compare(new, "!=", old) & allowed(rest_code, new_code)
        better = better & e.less(by_x * by_x * new_code, new_x * new_x * by_code)
        g.put_code(j, e.select(better, new & mask, old))
        return [e.select(better, new_x, by_x), e.select(better, new_code, by_code)]

    return e.loop(ir.Constant(I64, 5), [by_x, by_code], lambda _, carried: g.each(carried, one))
