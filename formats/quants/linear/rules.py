"""How a range of weights becomes a scale and a zero: what libraries have in common, and a row for what each does."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..codec import CodecError, Floats

Span = Literal["min..max", "min..0..max", "-max..max", "signed max"]
Steps = Literal["2^b - 2", "2^b - 1", "2^b"]
Zero = Literal["integer", "float", "shift", "rounded shift"]
Per = int | Literal["tensor", "row"]


# How x becomes a code, before it is clipped; round() takes ties to the even one. They differ where x / s is halfway
# between two integers, or a few last bits from there.
QUOTIENT = "round(x / s) + z"
QUOTIENT_SUM = "round(x / s + z)"
PRODUCT = "round(x * (1 / s)) + z"  # torch.fake_quantize_...
PRODUCT_SUM = "round(x * (1 / s) + z)"  # torch.quantize_per_channel
FUSED = "round(fma(x, 1 / s, z))"  # torch.quantize_per_tensor on x86
ONE, EPSILON = np.float32(1), 2.0**-23
ROUNDINGS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    QUOTIENT: lambda x, s, z: np.rint(x / s) + z,
    QUOTIENT_SUM: lambda x, s, z: np.rint(x / s + z),
    PRODUCT: lambda x, s, z: np.rint(x * (ONE / s)) + z,
    PRODUCT_SUM: lambda x, s, z: np.rint(x * (ONE / s) + z),
    FUSED: lambda x, s, z: np.rint((x.astype(np.float64) * (ONE / s) + z).astype(np.float32)),  # the product is exact
}


@dataclass(frozen=True)
class Rule:
    """One way to choose a scale and a zero.

    span            what the codes are spread over: from the smallest weight to the largest, that and zero, or to both
                    sides of zero as far as the largest magnitude. With "signed max" the weight of that magnitude is
                    the lowest code, as there is one more below zero than above; is it positive, the scale is negative.
                    (Of two that are equally large, the negative one.)
    steps           between the ends of the span, for codes of b bits; 2^b - 2 leaves the lowest code out
    zero            "integer": the code of weight 0, in the range of codes. "float": the same, not rounded.
                    "shift": the smallest weight is code 0, and what has to be subtracted later is kept in the unit of
                    weights. "rounded shift": that, rounded to whole steps.
    signed          codes from -2^(b-1) on (int8) instead of from 0 on (uint8)
    rounding        a key of `ROUNDINGS`; of no meaning with a shift, where a code is round((x + shift) / s)
    least_extent    a span (from zero on, where it is symmetric) is taken to be at least so wide
    least_scale     and a scale to be at least this; below 2^-126, as for a group of equal weights, it is 1
    source          who does it so
    """

    span: Span
    steps: Steps = "2^b - 1"
    zero: Zero = "integer"
    signed: bool = False
    rounding: str = QUOTIENT
    least_extent: float = 0.0
    least_scale: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        if self.symmetric and self.zero != "integer":
            raise CodecError(f"a rule with span {self.span!r} has its zero in the middle, it cannot be a {self.zero}")
        if self.shifted and self.signed:
            raise CodecError("codes that are shifted begin at 0, they cannot be signed")
        if self.rounding not in ROUNDINGS:
            raise CodecError(f"unknown rounding {self.rounding!r}; there are {', '.join(map(repr, ROUNDINGS))}")

    @property
    def symmetric(self) -> bool:
        return self.span in ("-max..max", "signed max")

    @property
    def shifted(self) -> bool:
        return self.zero in ("shift", "rounded shift")


@dataclass(frozen=True)
class Scheme:
    """A rule, the bits of a code (2 to 8), and which weights share a scale: all, a row, or so many neighbours of it."""

    rule: Rule
    bits: int
    per: Per = "row"

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 2 <= self.bits <= 8:
            raise CodecError(f"a code has 2 to 8 bits, not {self.bits!r}")
        if self.per not in ("tensor", "row") and (type(self.per) is not int or self.per < 1):
            raise CodecError(f"weights share a scale per 'tensor', 'row' or number of neighbours, not {self.per!r}")

    @property
    def low(self) -> int:
        """The lowest code."""
        if not self.rule.signed:
            return 0
        return -(1 << (self.bits - 1)) + (self.rule.steps == "2^b - 2")

    @property
    def high(self) -> int:
        """The highest code."""
        return (1 << (self.bits - self.rule.signed)) - 1

    @property
    def middle(self) -> int:
        """The code of weight 0 in a symmetric scheme."""
        return 0 if self.rule.signed else 1 << (self.bits - 1)

    @property
    def steps(self) -> int:
        """Scales between the two ends of the span."""
        return (1 << self.bits) - {"2^b - 2": 2, "2^b - 1": 1, "2^b": 0}[self.rule.steps]

    @property
    def dtype(self) -> npt.DTypeLike:
        """Of codes."""
        return np.int8 if self.rule.signed else np.uint8

    def __str__(self) -> str:
        per = f"groups of {self.per}" if isinstance(self.per, int) else f"per {self.per}"
        return f"{self.bits} bits, {self.rule.span}, {per}"


# Rows of the same arithmetic stand under each name that a reader would look for.
RULES = MappingProxyType(
    {
        "affine": Rule("min..0..max", source="the textbook"),
        "symmetric": Rule("-max..max", "2^b - 2", signed=True, source="the textbook"),
        # Observers and fake_quantize; real quantization rounds in two other ways, see ROUNDINGS.
        "torch_affine": Rule(
            "min..0..max", rounding=PRODUCT, least_scale=EPSILON, source="torch.ao, MinMaxObserver and per channel"
        ),
        "torch_symmetric": Rule(
            "-max..max", signed=True, rounding=PRODUCT, least_scale=EPSILON, source="torch.ao, per_..._symmetric"
        ),
        "torch_float_zero": Rule(
            "min..max", zero="float", rounding=PRODUCT_SUM, source="torch.ao, per_channel_affine_float_qparams"
        ),
        "quanto_qint8": Rule("-max..max", "2^b - 2", signed=True, source="optimum-quanto, AbsmaxOptimizer"),
        "quanto": Rule("min..max", zero="shift", source="optimum-quanto, MaxOptimizer (qint4, qint2)"),
        "gptq": Rule("min..0..max", source="GPTQ, Quantizer.find_params"),
        # GPTQ's own code does not mirror the span of a row without negative weights, and so clips its upper half.
        "gptq_symmetric": Rule("-max..max", source="GPTQ, Quantizer.find_params with sym"),
        # The span need not hold 0, so a zero may have to be clipped, and weights far from 0 with it.
        "awq": Rule("min..max", least_extent=1e-5, source="AutoAWQ, pseudo_quantize_tensor"),
        "awq_symmetric": Rule(
            "-max..max", "2^b - 2", signed=True, least_extent=1e-5, source="AutoAWQ, without zero_point"
        ),
        "compressed_tensors": Rule(
            "min..0..max", signed=True, rounding=QUOTIENT_SUM, source="compressed-tensors, calculate_qparams"
        ),
        "compressed_tensors_symmetric": Rule(
            "-max..max", signed=True, rounding=QUOTIENT_SUM, source="compressed-tensors, calculate_qparams"
        ),
        # As many steps as codes, so one code is missing at the upper end: the largest weight is clipped by a step.
        "deepspeed": Rule("min..max", "2^b", zero="rounded shift", source="DeepSpeed, AsymQuantizer"),
        "deepspeed_symmetric": Rule("-max..max", "2^b", signed=True, source="DeepSpeed, SymQuantizer"),
        # Where HQQ begins; it then moves the zeros. It keeps 1 / s and inverts that, so last bits of s and z differ.
        "hqq": Rule("min..max", zero="float", rounding=PRODUCT_SUM, least_scale=5e-5, source="HQQ, Quantizer.quantize"),
        # Q4_0 and Q5_0 before their scale is rounded to float16; ggml rounds ties up.
        "ggml": Rule("signed max", "2^b", rounding=PRODUCT, source="ggml, quantize_row_q4_0_ref"),
    }
)


def scheme(name: str, bits: int, per: Per = "row") -> Scheme:
    """The scheme of a rule by its name in `RULES`. CodecError offers the nearest names for one that is not there."""
    rule = RULES.get(name)
    if rule is None:
        near = difflib.get_close_matches(str(name), RULES, n=3) or RULES
        raise CodecError(f"there is no rule {name!r}; did you mean {', '.join(near)}?")
    return Scheme(rule, bits, per)
