"""How types store groups of weights, as a search sees it: the levels of their codes, and their scales.

What is read is level[code] * scale + minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from ..gguf.types import GGMLType
from .basic import column, reciprocal
from .bits import Codes, pack, unpack
from .codec import Blocks, Floats
from .fp4 import E2M1_DOUBLED, HALF_UE4M3, half_power, to_ue4m3
from .iq import IQ4_LEVELS
from .search import nearest

Try = tuple[float, float]  # a scale and a minimum, see `Form.tries`


def _around(first: float, last: float, count: int, *, mirrored: bool = True) -> tuple[Try, ...]:
    """So many scales, and the same ones with the other sign where levels are not the same on both sides."""
    factors = [first + (last - first) * k / (count - 1) for k in range(count)]
    return tuple((sign * factor, 0.0) for sign in ((1, -1) if mirrored else (1,)) for factor in factors)


def _between(ends: Sequence[float]) -> tuple[Try, ...]:
    """The lowest and the highest level moved inwards by each of these parts of their distance."""
    return tuple((1 - low - high, low) for low in ends for high in ends)


@dataclass(frozen=True)
class Form:
    """How a type stores groups of weights: here those with a float16 scale, the others are subclasses.

    levels  by code
    tries   factors of a scale, and what is added to the minimum in units of the span of the weights. The scale 1 puts
            the largest magnitude on the outermost level, or the least and the largest weight on the first and the last
    """

    levels: tuple[float, ...]
    tries: tuple[Try, ...]
    has_minimum: bool = False
    size: int = 32  # weights of a group
    width: int = 4  # bits of a code, and how they are packed
    run: int = 16
    in_order: Floats = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_order", np.unique(np.array(self.levels, np.float32)))

    @property
    def is_whole(self) -> bool:
        """Levels are neighbouring integers."""
        return bool((np.diff(self.in_order) == 1).all())

    @property
    def top(self) -> float:
        """The outermost level."""
        return float(np.abs(self.in_order).max())

    def nearest_level(self, x: Floats) -> Floats:
        """Between two integers the even one, between two others the higher one."""
        if self.is_whole:
            return nearest(np.clip(x, self.in_order[0], self.in_order[-1])).astype(np.float32)
        middles = (self.in_order[1:] + self.in_order[:-1]) / np.float32(2)
        found: Floats = self.in_order[np.searchsorted(middles, x, side="right")]
        return found

    def codes(self, level: Floats) -> Codes:
        """Of two codes with the same level the first."""
        number = [self.levels.index(one) for one in self.in_order.tolist()]
        found: Codes = np.array(number, np.uint8)[np.searchsorted(self.in_order, level)]
        return found

    def read(self, b: Blocks) -> tuple[Floats, Floats, Floats]:
        """Scales and minima float32 [groups, 1], and the level of each weight, float32 [groups, size]."""
        codes = b["qs"].view(np.uint8) + np.uint8(127) if self.width == 8 else unpack(b["qs"], self.width, self.run)
        if "qh" in (b.dtype.names or ()):
            codes = codes | unpack(b["qh"], 1, 1) << np.uint8(4)
        scale = self.scales(b)
        minimum = column(b["m"]) if self.has_minimum else np.zeros_like(scale)
        return scale, minimum, np.array(self.levels, np.float32)[codes].reshape(-1, self.size)

    def write(self, b: Blocks, scale: Floats, minimum: Floats, level: Floats) -> None:
        """The inverse of `read`."""
        codes = self.codes(level).reshape(len(b), -1)
        self.put_scales(b, scale)
        if self.has_minimum:
            b["m"] = minimum[:, 0]
        if "qh" in (b.dtype.names or ()):
            b["qh"] = pack(codes >> np.uint8(4), 1, 1)
            codes = codes & np.uint8(15)
        b["qs"] = (codes - np.uint8(127)).view(np.int8) if self.width == 8 else pack(codes, self.width, self.run)

    def scales(self, b: Blocks) -> Floats:
        return column(b["d"])

    def stored(self, _: Blocks, scale: Floats) -> Floats:
        """What will be read where a scale is written."""
        return half(scale)

    def put_scales(self, b: Blocks, scale: Floats) -> None:
        b["d"] = scale[:, 0]


class PowerOfTwo(Form):
    """MXFP4."""

    def scales(self, b: Blocks) -> Floats:
        return half_power(b["e"])[:, None]

    def stored(self, _: Blocks, scale: Floats) -> Floats:
        return half_power(self._exponents(scale))

    def put_scales(self, b: Blocks, scale: Floats) -> None:
        b["e"] = self._exponents(scale)[:, 0]

    @staticmethod
    def _exponents(scale: Floats) -> Codes:
        """The nearest; from the middle between two powers on the higher one."""
        biased = (scale.view(np.int32) & np.int32(0x7FFFFFFF)) + np.int32(0x400000) >> np.int32(23)
        exponents: Codes = np.minimum(biased + 1, 254).astype(np.uint8)
        return exponents


class SmallFloat(Form):
    """NVFP4: each group of a block has a scale of its own."""

    def scales(self, b: Blocks) -> Floats:
        found: Floats = HALF_UE4M3[b["d"]].reshape(-1, 1)
        return found

    def stored(self, _: Blocks, scale: Floats) -> Floats:
        found: Floats = HALF_UE4M3[to_ue4m3(scale * np.float32(2))]
        return found

    def put_scales(self, b: Blocks, scale: Floats) -> None:
        b["d"] = to_ue4m3(scale * np.float32(2)).reshape(-1, 4)


class PartOfBlock(Form):
    """IQ4_XS: scales are integers times that of the block, which stays as ggml's encoder chose it."""

    def scales(self, b: Blocks) -> Floats:
        six = unpack(b["scales_l"], 4, 1) | unpack(b["scales_h"], 2, 1) << np.uint8(4)
        found: Floats = column(b["d"]) * (six.astype(np.float32) - np.float32(32))
        return found.reshape(-1, 1)

    def stored(self, b: Blocks, scale: Floats) -> Floats:
        return self._unit(b) * self._numbers(b, scale)

    def put_scales(self, b: Blocks, scale: Floats) -> None:
        six = (self._numbers(b, scale) + np.float32(32)).astype(np.uint8).reshape(-1, 8)
        b["scales_l"], b["scales_h"] = pack(six & np.uint8(15), 4, 1), pack(six >> np.uint8(4), 2, 1)

    def _numbers(self, b: Blocks, scale: Floats) -> Floats:
        number = scale * reciprocal(self._unit(b))
        return nearest(np.clip(number, np.float32(-32), np.float32(31))).astype(np.float32)

    @staticmethod
    def _unit(b: Blocks) -> Floats:
        unit: Floats = np.repeat(column(b["d"]), 8, axis=0)
        return unit


def half(x: Floats) -> Floats:
    """As float16 holds it."""
    return x.astype(np.float16).astype(np.float32)


_SHRUNK = _around(0.7, 1.15, 16)
_MOVED = _between((-0.05, 0.0, 0.05, 0.1, 0.15))
_EXACT = _around(0.9, 1.05, 16, mirrored=False)
_FP4, _IQ4 = tuple(E2M1_DOUBLED.tolist()), tuple(IQ4_LEVELS.tolist())

FORMS = MappingProxyType({
    GGMLType.Q4_0: Form(tuple(range(-8, 8)), _SHRUNK),
    GGMLType.Q4_1: Form(tuple(range(16)), _MOVED, has_minimum=True),
    GGMLType.Q5_0: Form(tuple(range(-16, 16)), _SHRUNK),
    GGMLType.Q5_1: Form(tuple(range(32)), _MOVED, has_minimum=True),
    GGMLType.Q8_0: Form(tuple(range(-127, 128)), _EXACT, width=8),
    GGMLType.Q2_0: Form(tuple(range(-1, 3)), _around(0.3, 1.3, 16), size=64, width=2, run=1),
    GGMLType.IQ4_NL: Form(_IQ4, _SHRUNK),
    GGMLType.IQ4_XS: PartOfBlock(_IQ4, _SHRUNK),
    GGMLType.MXFP4: PowerOfTwo(_FP4, ((0.5, 0.0), (0.75, 0.0), (1.0, 0.0), (1.5, 0.0), (2.0, 0.0))),
    GGMLType.NVFP4: SmallFloat(_FP4, _around(0.65, 1.5, 16, mirrored=False), size=16, run=8),
})  # fmt: skip
