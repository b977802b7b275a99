"""Three bits and more: IQ3_XXS, IQ3_S. The magnitudes of 4 weights are a point of a grid; signs are stored apart.

In the layouts `d` scales the scales of 8 groups of 32 weights, which are four bits.
"""

from __future__ import annotations

import numpy as np

from ..gguf.types import GGMLType
from .basic import column, half
from .bits import pack, unpack
from .codec import BlockCodec, BlockImportance, Blocks, Floats
from .grids import grid
from .lattice import Search, costs, fit, small_scales, squares
from .signs import EVEN, SIGNS, pack_words, signed, unpack_words


class IQ3_XXS(BlockCodec, ggml=GGMLType.IQ3_XXS):
    # w = d * (scale + 0.5) / 2 * point * sign. In `signs`: four times 7 bits, the scale above them.
    block = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("signs", "<u4", 8)])
    search = Search("IQ3_XXS", distances=2, size=32, tries=15, step=0.2, least=1e-8, has_all_signs=False)

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        signs, scale = unpack_words(b["signs"])
        scale = column(b["d"]) * (np.float32(0.5) + scale) * np.float32(0.5)
        return signed(scale, grid("IQ3_XXS").values[b["qs"]], EVEN[signs])

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        found = fit(x.reshape(-1, 32), costs(cls, x, importance, 2, squares).reshape(-1, 32), cls.search)
        b = np.zeros(len(x), cls.block)
        d, scales, kept = small_scales(cls, found.scale.reshape(-1, 8), 31, 15)
        b["d"], b["qs"] = half(cls, d * np.float32(1.0125)), found.points.reshape(-1, 64)
        b["signs"] = pack_words(found.signs, scales)
        b["qs"][~kept], b["signs"][~kept] = 0, 0
        return b


class IQ3_S(BlockCodec, ggml=GGMLType.IQ3_S):
    # w = d * (2 * scale + 1) * point * sign; `qh` holds the ninth bits of the points.
    # After a group of zeros ggml stores `qs` and `signs` of the other groups of the block 32 weights too early, so that
    # they decode to other weights. Here they are where they belong.
    block = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)])
    search = Search("IQ3_S", distances=3, size=32, tries=9, step=0.2, least=1e-45, has_all_signs=True, again="any")

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        points = b["qs"] | unpack(b["qh"], 1, 1).astype(np.uint16) << np.uint16(8)
        scale = column(b["d"]) * (np.float32(1) + np.float32(2) * unpack(b["scales"], 4, 1))
        return signed(scale, grid("IQ3_S").values[points], SIGNS[b["signs"]])

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        found = fit(x.reshape(-1, 32), costs(cls, x, importance, 2, squares).reshape(-1, 32), cls.search)
        b = np.zeros(len(x), cls.block)
        d, scales, _ = small_scales(cls, found.scale.reshape(-1, 8), 31, 15)
        b["d"], b["scales"] = half(cls, d * np.float32(1.033)), pack(scales, 4, 1)
        points = found.points.reshape(-1, 64)
        b["qs"], b["qh"] = points & 255, pack((points >> 8).astype(np.uint8), 1, 1)
        b["signs"] = found.signs.reshape(-1, 32)
        return b
