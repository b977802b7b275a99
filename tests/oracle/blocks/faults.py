"""Faults that the comparison has to see: one rounding rule of NumPy's encoder, one bit in one block of a kernel's."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS

from .check import Bytes, Floats, Sides

# name of a function of formats.quants -> what it becomes, made of itself
_RULES: dict[str, Callable[[Any], Any]] = {
    "nearest": lambda _: lambda x: _half_away(x).astype(np.int32),
    "round_half_away": lambda _: np.rint,
    "_truncate": lambda _: lambda x: np.rint(x - (x.dtype.kind == "f") * np.float32(0.5)).astype(np.uint8),
    "half": lambda half: lambda codec, scale: _towards_zero(half(codec, scale), scale),
    "_nearest_level": lambda nearest: lambda x, scale: nearest(_outwards(x), scale),
}
RULE_OF = {
    **dict.fromkeys(("Q4_0", "Q4_1", "Q5_0", "Q5_1"), "_truncate"),
    **dict.fromkeys(("Q8_0", "Q8_1", "TQ1_0", "TQ2_0", "Q2_0"), "round_half_away"),
    **dict.fromkeys(("Q2_K", "Q4_K", "Q5_K", "Q8_K"), "nearest"),
    **dict.fromkeys(("MXFP4", "NVFP4"), "_nearest_level"),
    **dict.fromkeys(("F32", "F16", "BF16"), ""),  # nothing of their own to round with
}
WORDS = {
    "nearest": "halves away from zero, not to even",
    "round_half_away": "halves to even, not away from zero",
    "_truncate": "halves to even, not up",
    "half": "scales cut off, not rounded to float16",
    "_nearest_level": "of two levels that are equally near the larger one",
}


def rule_of(ggml_type: GGMLType, *, weighted: bool) -> str:
    """The name of the function that is changed; "" where there is none."""
    rule = RULE_OF.get(ggml_type.name, "half")
    return "half" if weighted and rule == "_truncate" else rule  # codes come of a search then, and halves are rare


@contextmanager
def rounding_changed(ggml_type: GGMLType, name: str) -> Iterator[None]:
    """The function of this name is another one in the module of this type's codec, and in those it is made of."""
    package = CODECS[ggml_type].__module__.rpartition(".")[0]
    modules = [m for path, m in list(sys.modules.items()) if path.startswith(f"{package}.") and hasattr(m, name)]
    if name.startswith("_"):  # private ones of the same name are others
        modules = [sys.modules[CODECS[ggml_type].__module__]]
    before = [getattr(module, name) for module in modules]
    try:
        for module, old in zip(modules, before, strict=True):
            setattr(module, name, _RULES[name](old))
        yield
    finally:
        for module, old in zip(modules, before, strict=True):
            setattr(module, name, old)


def one_bit_changed(sides: Sides, name: str) -> Sides:
    """The same sides, but the encoder of that name gets a bit of the first block wrong, the third time it is asked."""
    calls = itertools.count()

    def changed(ggml_type: GGMLType, x: Floats, given: Floats | None) -> Bytes:
        out = sides.encoders[name](ggml_type, x, given).copy()
        if next(calls) == 2:
            out.reshape(-1)[ggml_type.block_bytes - 1] ^= 0x10
        return out

    return replace(sides, encoders={**sides.encoders, name: changed})


def _half_away(x: Floats) -> Floats:
    return np.copysign(np.floor(np.abs(x) + np.float32(0.5)), x)


def _outwards(x: Floats) -> Floats:
    """The next numbers away from zero."""
    return np.nextafter(x, np.copysign(np.float32(np.inf), x))


def _towards_zero(rounded: Any, scale: Floats) -> Any:
    too_far = np.abs(rounded.astype(np.float32)) > np.abs(scale[:, 0])
    return np.where(too_far, np.nextafter(rounded, np.float16(0)), rounded)
