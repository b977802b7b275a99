"""Ops that work on each element alone."""

from __future__ import annotations

from math import erf, pi, sqrt

import numpy as np

from .spec import F32, REQUIRED, Call, Shapes, op, require_choice, require_finite, same_shape

ACTIVATIONS = ("sigmoid", "silu", "gelu", "gelu_tanh")

_erf = np.vectorize(erf, otypes=[np.float32])  # NumPy has no erf; the reference may be slow


def apply_activation(x: F32, act: str) -> F32:
    """sigmoid: 1 / (1 + e^-x). silu: x * sigmoid(x). gelu: x * Phi(x), exact. gelu_tanh: its tanh approximation."""
    if act in ("sigmoid", "silu"):
        with np.errstate(over="ignore"):  # exp(-x) may overflow to infinity: the quotient is then 0, as it should be
            return (x if act == "silu" else np.float32(1)) / (1 + np.exp(-x))
    if act == "gelu":
        return 0.5 * x * (1 + _erf(x / sqrt(2))) if x.size else x
    return 0.5 * x * (1 + np.tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))


def _activation_shape(call: Call) -> Shapes:
    require_choice(call, "act", ACTIVATIONS)
    return same_shape(call)


def _scale_shape(call: Call) -> Shapes:
    require_finite(call, "factor")
    return same_shape(call)


def _softcap_shape(call: Call) -> Shapes:
    require_finite(call, "cap", positive=True)
    return same_shape(call)


@op("add", same_shape, inputs=2)
def add(x: F32, y: F32) -> F32:
    """x + y"""
    return x + y


@op("scale", _scale_shape, attrs={"factor": REQUIRED})
def scale(x: F32, *, factor: float) -> F32:
    """x * factor"""
    return x * np.float32(factor)


@op("activation", _activation_shape, attrs={"act": REQUIRED})
def activation(x: F32, *, act: str) -> F32:
    """act(x)"""
    return apply_activation(x, act)


@op("glu", _activation_shape, inputs=2, attrs={"act": REQUIRED})
def glu(gate: F32, up: F32, *, act: str) -> F32:
    """act(gate) * up"""
    return apply_activation(gate, act) * up


@op("softcap", _softcap_shape, attrs={"cap": REQUIRED})
def softcap(x: F32, *, cap: float) -> F32:
    """cap * tanh(x / cap): close to x near zero, never beyond +-cap."""
    return np.float32(cap) * np.tanh(x / np.float32(cap))
