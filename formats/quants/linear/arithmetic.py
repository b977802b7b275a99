"""The arithmetic: from weights to scales and zeros, to codes, and back. All in float32, as libraries do it.

Scales and zeros have as many dimensions as the weights. The last one counts the groups of a row; where all rows share a
scale, the others are 1: [rows, cols // 32] for groups of 32, [rows, 1] for rows, [1, 1] for a whole matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..codec import CodecError, Floats, require_finite
from .rules import ROUNDINGS, Scheme

Array = npt.NDArray[Any]
Codes = npt.NDArray[Any]  # int8 or uint8
WHOLE = 1 << 24  # up to here every integer is a float32
TINY = np.float32(2.0**-126)  # from here on a float32 has all its bits, and a reciprocal


@dataclass(frozen=True, eq=False)
class Parameters:
    """w = (q - zero) * scale, or, where a shift is given, w = q * scale - shift.

    Of any origin: computed here, or read from a file (GPTQ, AWQ: integer zeros; HQQ: float zeros; quanto: shifts). All
    of one shape and float32, but a zero may be of any integer type. CodecError otherwise, or where one is not finite.
    """

    scale: Floats
    zero: Array | None = None  # None is 0
    shift: Floats | None = None

    def __post_init__(self) -> None:
        if self.zero is not None and self.shift is not None:
            raise CodecError("parameters have a zero or a shift, not both")
        for name, array in (("scale", self.scale), ("zero", self.zero), ("shift", self.shift)):
            if array is not None:
                _check(name, array, self.scale.shape)

    def columns(self, groups: npt.NDArray[np.integer[Any]]) -> Parameters:
        """Where groups are no neighbours (act-order of GPTQ): of each column by itself, given its group, [cols]."""
        last = self.scale.shape[-1] - 1
        if groups.ndim != 1 or groups.dtype.kind not in "iu" or not _within(groups, 0, last):
            raise CodecError(f"the group of each column is an integer from 0 to {last}")
        zero, shift = (None if v is None else v[..., groups] for v in (self.zero, self.shift))
        return Parameters(self.scale[..., groups], zero, shift)


def parameters(w: Floats, scheme: Scheme) -> Parameters:
    """Scales and zeros for weights float32 [..., cols], by the rule of the scheme.

    CodecError where the weights are none, of another dtype, not finite, further apart than float32 reaches, or no whole
    number of groups.
    """
    rule, grouped = scheme.rule, _groups_of(w, scheme)
    axis = tuple(range(grouped.ndim)) if scheme.per == "tensor" else -1
    low, high = (f(grouped, axis=axis, keepdims=True)[..., 0] for f in (np.min, np.max))
    if rule.span == "min..0..max":
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = _scale(scheme, low, high)
    if not rule.symmetric:
        return _affine(scheme, low, scale)
    if rule.span == "signed max":
        scale = np.where(high > -low, -scale, scale)
    return Parameters(scale, np.full(scale.shape, scheme.middle, np.int32))


def _scale(scheme: Scheme, low: Floats, high: Floats) -> Floats:
    rule, sides = scheme.rule, 2 if scheme.rule.symmetric else 1
    with np.errstate(over="ignore"):
        extent = np.maximum(-low, high) if rule.symmetric else high - low
        scale = np.maximum(extent, np.float32(rule.least_extent)) / np.float32(scheme.steps / sides)
    if not np.isfinite(scale).all():
        raise CodecError(f"{scheme}: from {low.min():g} to {high.max():g} is too far for a float32 scale")
    scale = np.maximum(scale, np.float32(rule.least_scale))
    found: Floats = np.where(scale < TINY, np.float32(1), scale)
    return found


def _affine(scheme: Scheme, low: Floats, scale: Floats) -> Parameters:
    with np.errstate(over="ignore"):
        first = -low / scale  # steps from the smallest weight up to 0
    if scheme.rule.zero == "integer":
        zero = np.clip(scheme.low + np.rint(first), scheme.low, scheme.high)
        return Parameters(scale, zero.astype(np.int32))
    if scheme.rule.zero == "float":
        return Parameters(scale, first + np.float32(scheme.low))
    return Parameters(scale, shift=-low if scheme.rule.zero == "shift" else np.rint(first) * scale)


def quantize(w: Floats, scheme: Scheme, given: Parameters) -> Codes:
    """Codes of weights float32 [..., cols], int8 or uint8 of the same shape; what is out of range gets the last one.

    The parameters may be others than `parameters` finds. CodecError where they do not fit the weights, or where a scale
    is 0 or too small to divide by.
    """
    grouped, (scale, zero, shift) = _fit(_checked(w, scheme), given)
    if (np.abs(scale) < TINY).any():
        raise CodecError(f"{scheme}: a scale is 0, or too small to divide by")
    with np.errstate(over="ignore"):
        if shift is not None:
            found = np.rint((grouped + shift) / scale)
        else:
            found = ROUNDINGS[scheme.rule.rounding](grouped, scale, np.float32(0) if zero is None else zero)
    codes: Codes = np.clip(found, scheme.low, scheme.high).astype(scheme.dtype)
    return codes.reshape(w.shape)


def dequantize(codes: Codes, given: Parameters) -> Floats:
    """Weights of integer codes [..., cols]: float32 of the same shape, infinite where that is what comes of the scale.

    CodecError where the codes are no integers or the parameters do not fit.
    """
    if codes.dtype.kind not in "iu":
        raise CodecError(f"codes are integers, not {codes.dtype}")
    grouped, (scale, zero, shift) = _fit(codes, given)
    found = grouped.astype(np.float32)
    if zero is not None:
        found -= zero
    with np.errstate(over="ignore"):
        found *= scale
    if shift is not None:
        found -= shift
    return found.reshape(codes.shape)


def round_trip(w: Floats, scheme: Scheme) -> Floats:
    """What the weights become: float32 of the same shape."""
    found = parameters(w, scheme)
    return dequantize(quantize(w, scheme, found), found)


def _check(name: str, array: Array, shape: tuple[int, ...]) -> None:
    kinds = "fiu" if name == "zero" else "f"
    if array.dtype.kind not in kinds or (array.dtype.kind == "f" and array.dtype != np.float32):
        raise CodecError(f"a {name} is float32{' or an integer' if name == 'zero' else ''}, not {array.dtype}")
    if array.shape != shape:
        raise CodecError(f"scales of shape {shape} with a {name} of shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CodecError(f"a {name} is NaN or infinite")
    if array.dtype.kind in "iu" and not _within(array, -WHOLE, WHOLE):
        raise CodecError(f"a {name} is beyond {WHOLE:,}, where float32 skips integers")


def _within(array: Array, low: int, high: int) -> bool:
    return not array.size or low <= int(array.min()) <= int(array.max()) <= high


def _checked(w: Floats, scheme: Scheme) -> Floats:
    if w.dtype != np.float32:
        raise CodecError(f"{scheme}: expected an array of float32, got {w.dtype}")
    if not w.size or not w.ndim:
        raise CodecError(f"{scheme}: an array of shape {w.shape} has no weights in rows")
    require_finite(str(scheme), w)
    return w


def _groups_of(w: Floats, scheme: Scheme) -> Floats:
    """[..., cols] -> [..., groups, cols of each]."""
    size = scheme.per if isinstance(scheme.per, int) else w.shape[-1] if w.ndim else 1
    if _checked(w, scheme).shape[-1] % size:
        raise CodecError(f"{scheme}: a row of {w.shape[-1]} weights is not a whole number of groups")
    return w.reshape(*w.shape[:-1], -1, size)


def _fit(array: Array, given: Parameters) -> tuple[Array, tuple[Floats, Floats | None, Floats | None]]:
    """An array as [..., groups, cols of each], and scale, zero and shift as float32 [..., groups, 1]."""
    shape = given.scale.shape
    fits = len(shape) == array.ndim >= 1 and all(n in (1, m) for n, m in zip(shape[:-1], array.shape[:-1], strict=True))
    if not fits or not shape[-1] or array.shape[-1] % shape[-1]:
        raise CodecError(f"scales of shape {shape} do not fit an array of shape {array.shape}")
    grouped = array.reshape(*array.shape[:-1], shape[-1], array.shape[-1] // shape[-1])
    zero = None if given.zero is None else given.zero.astype(np.float32)[..., None]
    shift = None if given.shift is None else given.shift[..., None]
    return grouped, (given.scale[..., None], zero, shift)
