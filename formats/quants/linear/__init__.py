"""Linear quantization: weights become small integers, evenly spaced, with a scale and a zero for each group of them.

    rule = scheme("awq", bits=4, per=128)     # groups of 128 weights; or per="row", per="tensor"
    found = parameters(w, rule)               # float32 [..., cols] -> scales and zeros, [..., groups]
    codes = quantize(w, rule, found)          # -> uint8 or int8 [..., cols]
    w2 = dequantize(codes, found)             # -> float32 [..., cols]; needs no rule, only scales and zeros
    errors(w, w2).relative_rmse               # what it cost; also .sqnr, .cosine, .largest

How libraries differ is one table, `RULES`. `pack` and `stripe` are the two ways in which they put codes into bytes. All
is plain NumPy, made to be read; docs/quantization.md is a lesson by it.
"""

from __future__ import annotations

from ..accuracy import errors
from .arithmetic import Parameters, dequantize, parameters, quantize, round_trip
from .packing import pack, stripe, unpack, unstripe
from .rules import RULES, Rule, Scheme, scheme

__all__ = [
    "RULES",
    "Parameters",
    "Rule",
    "Scheme",
    "dequantize",
    "errors",
    "pack",
    "parameters",
    "quantize",
    "round_trip",
    "scheme",
    "stripe",
    "unpack",
    "unstripe",
]
