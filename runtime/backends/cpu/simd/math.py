"""exp, tanh, silu and gelu on float32 vectors, from the emitter's instructions only."""

from __future__ import annotations

from llvmlite import ir

from .emit import F32, I32, Emitter, Vec

_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860677124e-6  # the high part has few bits: n * it is exact


def exp(e: Emitter, x: Vec) -> Vec:
    """e^x within 2 units in the last place; 0 below -87.3, inf above 88.7."""
    n = e.round_even(e.maximum(e.minimum(x * _LOG2E, 128.0), -127.0))
    whole = e.to_float(n)
    r = e.fma(whole, e.like(x, -_LN2_HIGH), x)  # not with operators: fast-math would add the two parts of ln(2) first
    r = e.fma(whole, e.like(x, -_LN2_LOW), r)
    # Taylor coefficients to the sixth power: |r| <= ln(2)/2, error below 2e-8
    p = e.like(x, 1.0 / 720.0)
    for c in (1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0):
        p = e.fma(p, r, e.like(x, c))
    # 2^n in two factors, so that n = 128 and n = -127 are reached without overflow of the exponent field
    half = Vec(e, e.b.ashr(n.ll, e.like(n, 1).ll))
    power = e.bitcast((half + 127) << 23, F32, x.n)
    power2 = e.bitcast((n - half + 127) << 23, F32, x.n)
    value = p * power * power2
    value = e.select(e.less(x, -87.33654), e.like(x, 0.0), value)
    return e.select(e.less(e.like(x, 88.72283), x), e.like(x, float("inf")), value)


def exp_negative(e: Emitter, x: Vec) -> Vec:
    """e^x for x <= 0, within 2 units in the last place; 0 below -87 (also for -inf). What a softmax needs, no more."""
    n = e.round_even(e.maximum(x, -87.0) * _LOG2E)
    whole = e.to_float(n)
    r = e.fma(whole, e.like(x, -_LN2_HIGH), x)
    r = e.fma(whole, e.like(x, -_LN2_LOW), r)
    p = e.like(x, 1.0 / 720.0)
    for c in (1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0):
        p = e.fma(p, r, e.like(x, c))
    value = p * e.bitcast((n + 127) << 23, F32, x.n)  # a product, so that NaN stays NaN
    return e.select(e.less(x, -87.0), e.like(x, 0.0), value)


def exp_weights(e: Emitter, x: Vec, shift: Vec) -> Vec:
    """e^(x - shift) for x <= shift within 5e-5 and at least 2^-126, for weights that are then rounded to bfloat16.

    NaN stays. Two thirds of the instructions of exp_negative.
    """
    y = e.fma(x, e.like(x, _LOG2E), shift * -_LOG2E)
    y = e.select(e.less(y, -126.0), e.like(y, -126.0), y)  # in this order NaN stays
    n = e.round_even(y)
    r = y - e.to_float(n)
    p = e.like(x, 9.6181291e-3)  # powers of ln(2) / k!
    for c in (5.5504109e-2, 0.24022651, 0.69314718, 1.0):
        p = e.fma(p, r, e.like(x, c))
    return p * e.bitcast((n + 127) << 23, F32, x.n)


def sincos(e: Emitter, x: Vec) -> tuple[Vec, Vec]:
    """Sine and cosine within 1e-7, for 0 <= x < 2^20: the angle is reduced to [-pi/4, pi/4] in float64."""
    f64 = ir.VectorType(ir.DoubleType(), x.n)
    b = e.b
    wide = b.fpext(x.ll, f64)
    turns = b.fadd(b.fmul(wide, ir.Constant(f64, [0.6366197723675814] * x.n)), ir.Constant(f64, [0.5] * x.n))
    # Rounded by way of integers: fast-math, which Numba sets on every instruction, would cancel an added constant.
    quadrant = Vec(e, b.fptosi(turns, ir.VectorType(I32, x.n)))
    whole = b.fmul(b.sitofp(quadrant.ll, f64), ir.Constant(f64, [1.5707963267948966] * x.n))
    r = Vec(e, b.fptrunc(b.fsub(wide, whole), x.ll.type))
    square = r * r
    sine = e.like(x, 1.0 / 362880.0)
    for c in (-1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0):
        sine = e.fma(sine, square, e.like(x, c))
    sine = sine * r
    cosine = e.like(x, -1.0 / 3628800.0)
    for c in (1.0 / 40320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5, 1.0):
        cosine = e.fma(cosine, square, e.like(x, c))
    odd = Vec(e, b.icmp_signed("!=", (quadrant & 1).ll, e.like(quadrant, 0).ll))
    return (
        _flip(e, e.select(odd, cosine, sine), quadrant & 2),
        _flip(e, e.select(odd, sine, cosine), (quadrant + 1) & 2),
    )


def _flip(e: Emitter, x: Vec, two: Vec) -> Vec:
    """-x in lanes where `two` is 2, x where it is 0."""
    return e.bitcast(e.bitcast(x, I32, x.n) ^ (two << 30), F32, x.n)


def sigmoid(e: Emitter, x: Vec) -> Vec:
    return e.like(x, 1.0) / (exp(e, -x) + 1.0)


def silu(e: Emitter, x: Vec) -> Vec:
    """x * sigmoid(x)"""
    return x / (exp(e, -x) + 1.0)


def tanh(e: Emitter, x: Vec) -> Vec:
    """1 - 2 / (e^2x + 1), with a series near zero where that cancels."""
    wide = e.like(x, 1.0) - e.like(x, 2.0) / (exp(e, x * 2.0) + 1.0)
    square = x * x
    p = e.like(x, 62.0 / 2835.0)
    for c in (-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0):
        p = e.fma(p, square, e.like(x, c))
    return e.select(e.less(e.absolute(x), 0.25), x * p, wide)


def gelu_tanh(e: Emitter, x: Vec) -> Vec:
    """The tanh form: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))"""
    inner = x * 0.7978845608028654 * (x * x * 0.044715 + 1.0)
    return x * 0.5 * (tanh(e, inner) + 1.0)


def gelu(e: Emitter, x: Vec) -> Vec:
    """The exact form: x/2 * (1 + erf(x / sqrt(2)))"""
    return x * 0.5 * (erf(e, x * 0.7071067811865476) + 1.0)


def erf(e: Emitter, x: Vec) -> Vec:
    """Abramowitz and Stegun 7.1.26 (error 1.5e-7), odd, with the Taylor series near zero."""
    a = e.absolute(x)
    t = e.like(x, 1.0) / (a * 0.3275911 + 1.0)
    p = e.like(x, 1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        p = e.fma(p, t, e.like(x, c))
    wide = e.like(x, 1.0) - p * t * exp(e, -(a * a))
    signed = e.select(e.less(x, 0.0), -wide, wide)
    square = x * x
    series = e.like(x, 1.0 / 216.0)
    for c in (-1.0 / 42.0, 1.0 / 10.0, -1.0 / 3.0, 1.0):
        series = e.fma(series, square, e.like(x, c))
    return e.select(e.less(a, 0.3), x * 1.1283791670955126 * series, signed)

