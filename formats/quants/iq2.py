"""Two bits and more: IQ2_XXS, IQ2_XS, IQ2_S. The magnitudes of 8 weights are a point of a grid; signs are apart.

In the layouts `d` scales the scales of groups, which are four bits. Coordinates of points are 8, 25 or 43.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..gguf.types import GGMLType
from .basic import column, half
from .bits import pack, unpack
from .codec import BlockCodec, BlockImportance, Blocks, Floats
from .grids import grid
from .lattice import Search, costs, fit, fit_from, magnitudes, small_scales
from .search import positive
from .signs import EVEN, SIGNS, pack_words, signed, unpack_words


class IQ2_XXS(BlockCodec, ggml=GGMLType.IQ2_XXS):
    # 8 groups of 32: w = d * (scale + 0.5) / 4 * point * sign. In `signs`: four times 7 bits, the scale above them.
    block = np.dtype([("d", "<f2"), ("groups", [("points", "u1", 4), ("signs", "<u4")], 8)])
    search = Search("IQ2_XXS", distances=2, size=32, tries=6, step=0.1, least=1e-15, has_all_signs=False, again="all")

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        signs, scale = unpack_words(b["groups"]["signs"])
        return signed(_scale(b["d"], scale), grid("IQ2_XXS").values[b["groups"]["points"]], EVEN[signs])

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        cost = costs(cls, x, importance, 1).reshape(-1, 32)
        magnitude, signs = magnitudes(x.reshape(-1, 32), cost, cls.search)
        scale = positive(magnitude, 4, cost)[0][:, 0]
        most = scale * np.float32(3)
        kept = (magnitude.max(axis=1) >= np.float32(cls.search.least)) & ~(most <= 0)
        found = fit_from(magnitude, cost, signs, scale, most, kept, cls.search)
        b = np.zeros(len(x), cls.block)
        d, scales, kept = small_scales(cls, found.scale.reshape(-1, 8), 31, 15)
        b["d"], b["groups"]["points"] = half(cls, d), found.points.reshape(-1, 8, 4)
        b["groups"]["signs"] = pack_words(found.signs, scales)
        b["groups"][~kept] = 0
        return b


class IQ2_XS(BlockCodec, ggml=GGMLType.IQ2_XS):
    # 16 groups of 16: w = d * (scale + 0.5) / 4 * point * sign; nine bits of `qs` are a point, seven its signs.
    block = np.dtype([("d", "<f2"), ("qs", "<u2", 32), ("scales", "u1", 8)])
    search = Search("IQ2_XS", distances=2, size=16, tries=9, step=0.1, least=1e-15, has_all_signs=False)

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        points, signs = grid("IQ2_XS").values[b["qs"] & np.uint16(511)], EVEN[b["qs"] >> np.uint16(9)]
        return signed(_scale(b["d"], unpack(b["scales"], 4, 1)), points, signs)

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        found = fit(x.reshape(-1, 16), costs(cls, x, importance, 1).reshape(-1, 16), cls.search)
        b = np.zeros(len(x), cls.block)
        d, scales, kept = small_scales(cls, found.scale.reshape(-1, 16), 31, 15)
        b["d"], b["scales"] = half(cls, d), pack(scales, 4, 1)
        b["qs"] = (found.points | found.signs.astype(np.int32) << 9).reshape(-1, 32)
        b["qs"][~kept] = 0
        return b


class IQ2_S(BlockCodec, ggml=GGMLType.IQ2_S):
    # 16 groups of 16: w = d * (scale + 0.5) / 4 * point * sign; `qh` holds the upper two bits of the points' ten.
    block = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)])
    search = Search("IQ2_S", distances=1, size=16, tries=9, step=0.1, least=1e-8, has_all_signs=True)

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        points = b["qs"] | unpack(b["qh"], 2, 1).astype(np.uint16) << np.uint16(8)
        return signed(_scale(b["d"], unpack(b["scales"], 4, 1)), grid("IQ2_S").values[points], SIGNS[b["signs"]])

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        cost = costs(cls, x, importance, 2, lambda x, power: np.float32(0.25) * power + x * x)
        found = fit(x.reshape(-1, 16), cost.reshape(-1, 16), cls.search)
        b = np.zeros(len(x), cls.block)
        d, scales, _ = small_scales(cls, found.scale.reshape(-1, 16), 31, 15)
        b["d"], b["scales"] = half(cls, d * np.float32(0.9875)), pack(scales, 4, 1)
        points = found.points.reshape(-1, 32)
        b["qs"], b["qh"] = points & 255, pack((points >> 8).astype(np.uint8), 2, 1)
        b["signs"] = found.signs.reshape(-1, 32)
        return b


def _scale(d: npt.NDArray[np.float16], four_bits: npt.NDArray[np.uint8] | Floats) -> Floats:
    scale: Floats = column(d) * (np.float32(0.5) + four_bits.astype(np.float32)) * np.float32(0.25)
    return scale
