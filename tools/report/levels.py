"""The codebook of a block type, and where it lies for each weight of a tensor: found by asking its codec.

Most types store a weight as `offset + scale * level`, with a code that chooses the level among a few fixed ones. What
the levels are, and which bits of a block say the scale, is the business of the codec; but blocks can be decoded with
other codes in place of their own. Two such decodings give scale and offset of every weight, and blocks of random codes
and one scale give the codebook. So a new type needs nothing here.

Types that code several weights together, or keep a scale among the codes, have no such levels; `probe` says so by None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...formats.gguf import GGMLType
from ...formats.quants import CODECS, BlockCodec

MOST = 256  # levels of a codebook
TRIES = 4096  # blocks of random codes: one of 256 levels is missed in one of 10**7 places
FILLS = (0x01, 0xFF)  # what the bytes of scales are set to, until all weights of a block have the same scale
CLOSE = 1e-3  # of the largest level: the rounding of float32, many times over

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Levels:
    """The codebook of a type, ascending, with 1 for the largest distance from zero."""

    type: GGMLType
    values: NDArray[np.float64]
    _low: Floats  # float32[block]: the level of each weight when all bits of the codes are 0
    _high: Floats  # and when all are 1

    def place(self, data: Bytes, *weights: Floats) -> Sequence[Floats]:
        """The weights of blocks in units of the levels, (w - offset) / scale; NaN in a block of scale zero.

        uint8[n, block_bytes], float32[n, block] -> float32[n, block] for each array of weights.
        """
        codec = CODECS[self.type]
        low, high = (codec.decode(_with_codes(codec, data, code)) for code in (0x00, 0xFF))
        with np.errstate(all="ignore"):
            scale = (high - low) / (self._high - self._low)
            offset = low - scale * self._low
            placed = [(w - offset) / scale for w in weights]
        return [np.where(np.isfinite(p), p, np.float32(np.nan)) for p in placed]

    def explain(self, data: Bytes, decoded: Floats) -> bool:
        """Are these weights, all but a thousandth, levels of the codebook?"""
        (placed,) = self.place(data, decoded)
        placed = placed[np.isfinite(placed)]
        return len(placed) > 0 and float(np.mean(_distance(placed, self.values) > CLOSE)) < 1e-3


def probe(type_: GGMLType) -> Levels | None:
    """The levels of a type; None where weights have none of their own."""
    codec = CODECS[type_]
    if codec.block_size == 1 or not _code_fields(codec):
        return None
    codes = np.random.default_rng(0).integers(0, 256, (TRIES, codec.block_bytes), np.uint8)
    for fill in FILLS:
        found = _probe(codec, codes, fill)
        if found is not None:
            return found
    return None


def _probe(codec: type[BlockCodec], codes: Bytes, fill: int) -> Levels | None:
    unit = _unit_block(codec, fill)
    decoded = codec.decode(_with_codes(codec, np.repeat(unit, len(codes), axis=0), codes))
    if not np.isfinite(decoded).all() or not decoded.any():
        return None
    largest = np.abs(decoded).max()
    values = _distinct(decoded[:, 0] / largest)
    if len(values) > MOST or any(not _is_same(values, _distinct(column / largest)) for column in decoded.T[1:]):
        return None
    low, high = (codec.decode(_with_codes(codec, unit, code))[0] / largest for code in (0x00, 0xFF))
    return Levels(codec.type, values, low, high) if (low != high).all() else None


def _code_fields(codec: type[BlockCodec]) -> list[str]:
    """Integer fields with at least a bit for each weight. Scales, and what else a group shares, are smaller."""
    found = []
    for name in codec.block.names or ():
        dtype = codec.block[name]
        if dtype.base.kind in "iu" and 8 * dtype.itemsize >= codec.block_size:
            found.append(name)
    return found


def _unit_block(codec: type[BlockCodec], fill: int) -> Bytes:
    """One block, bytes[1, block_bytes]: its first float is 1, others (of minima) are 0, all else is `fill`."""
    data = np.full((1, codec.block_bytes), fill, np.uint8)
    block, value = data.view(codec.block), 1.0
    for name in codec.block.names or ():
        if codec.block[name].base.kind == "f":
            block[name], value = value, 0.0
    return data


def _with_codes(codec: type[BlockCodec], data: Bytes, codes: Bytes | int) -> Bytes:
    """The blocks with other bits in the fields of the codes: bytes[n, block_bytes], or one byte for all."""
    changed: Bytes = np.ascontiguousarray(data).copy()
    fields: Any = codec.block.fields
    for name in _code_fields(codec):
        dtype, start = fields[name][:2]
        part = slice(start, start + dtype.itemsize)
        changed[:, part] = codes if isinstance(codes, int) else codes[:, part]
    return changed


def _distinct(values: Floats) -> NDArray[np.float64]:
    """Ascending, without those that differ by rounding."""
    ascending = np.unique(values).astype(np.float64)
    return ascending[np.diff(ascending, prepend=-np.inf) > CLOSE / 10]


def _is_same(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=0, atol=CLOSE / 10))


def _distance(placed: Floats, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From each to the nearest of the values."""
    between = (values[1:] + values[:-1]) / 2
    distance: NDArray[np.float64] = np.abs(placed - values[np.searchsorted(between, placed)])
    return distance
