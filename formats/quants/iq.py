"""Four-bit codes that index a fixed, uneven table of levels: IQ4_NL, IQ4_XS."""

from __future__ import annotations

import numpy as np

from ..gguf.types import GGMLType
from .basic import column, half
from .bits import Codes, pack, unpack
from .codec import BlockCodec, BlockImportance, Blocks, Floats
from .search import NOTHING, nearest, signed_extreme, total

# Denser near zero, where most weights are. Not symmetric: no level is exactly zero.
IQ4_LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
IQ4_LEVELS.flags.writeable = False


class IQ4_NL(BlockCodec, ggml=GGMLType.IQ4_NL):
    block = np.dtype([("d", "<f2"), ("qs", "u1", 16)])  # w = d * level[q]

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return column(b["d"]) * IQ4_LEVELS[unpack(b["qs"], 4, 16)]

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b = np.empty(len(x), cls.block)
        scale = _scales(x, _cost(x, importance))
        b["d"], b["qs"] = half(cls, scale), pack(_nearest_level(_inverse(scale) * x), 4, 16)
        return b


class IQ4_XS(BlockCodec, ggml=GGMLType.IQ4_XS):
    # 8 groups of 32: w = d * (scale - 32) * level[q]; six-bit scales, four bits in `scales_l`, two in `scales_h`.
    block = np.dtype([("d", "<f2"), ("scales_h", "u1", 2), ("scales_l", "u1", 4), ("qs", "u1", 128)])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        six_bits = unpack(b["scales_l"], 4, 1) | unpack(b["scales_h"], 2, 1) << np.uint8(4)
        scale = column(b["d"]) * (six_bits.astype(np.float32) - np.float32(32))
        w = IQ4_LEVELS[unpack(b["qs"], 4, 16)].reshape(len(b), 8, 32)
        w *= scale[:, :, None]
        return w.reshape(len(b), 256)

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, groups = np.empty(len(x), cls.block), x.reshape(-1, 32)
        scales = _scales(groups, _cost(x, importance).reshape(-1, 32)).reshape(-1, 8)
        d = -signed_extreme(scales) / np.float32(32)
        six_bits = np.clip(nearest(_inverse(d) * scales), -32, 31)
        inverse = _inverse(d * six_bits.astype(np.float32)).reshape(-1, 1)
        packed = (six_bits + 32).astype(np.uint8)
        b["d"], b["qs"] = half(cls, d), pack(_nearest_level(inverse * groups).reshape(len(x), 256), 4, 16)
        b["scales_l"], b["scales_h"] = pack(packed & 15, 4, 1), pack(packed >> 4, 2, 1)
        return b


def _cost(x: Floats, importance: BlockImportance | None) -> Floats:
    """Of an error of each weight of a block."""
    if importance is None:
        return x * x
    return importance.cost(x, total(x * x) * np.float32(2 / x.shape[1]))


def _scales(x: Floats, w: Floats) -> Floats:
    """The best of 16 scales of each group: float32[n, 32] -> float32[n, 1]."""
    top, lowest = signed_extreme(x), IQ4_LEVELS[0]

    def fit(inverse: Floats) -> tuple[Floats, Floats]:
        q = IQ4_LEVELS[_nearest_level(inverse * x)]
        return total(w * q * x), total(w * q * q)

    by_x, by_level = fit(np.float32(1) / (-top / lowest))
    scale: Floats = np.where(by_level > 0, by_x / by_level, np.float32(0))
    best = scale * by_x
    for step in range(-7, 8):
        by_x, by_level = fit((np.float32(step) + lowest) / top)
        better = (by_level > 0) & (by_x * by_x > best * by_level)
        scale = np.where(better, by_x / by_level, scale)
        best = np.where(better, scale * by_x, best)
    return np.where(np.abs(top) < NOTHING, np.float32(0), scale)


def _nearest_level(x: Floats) -> Codes:
    """Codes of the levels next to numbers; of two that are equally near the higher one."""
    upper = np.clip(np.searchsorted(IQ4_LEVELS, x, side="right"), 1, 15)
    is_lower = x - IQ4_LEVELS[upper - 1] < IQ4_LEVELS[upper] - x
    return (upper - is_lower).astype(np.uint8)


def _inverse(d: Floats) -> Floats:
    inverse: Floats = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
    return inverse
