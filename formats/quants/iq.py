"""Four-bit codes that index a fixed, uneven table of levels: IQ4_NL, IQ4_XS."""

from __future__ import annotations

import numpy as np

from ..gguf.types import GGMLType
from .basic import column
from .bits import unpack
from .codec import BlockCodec, Blocks, Floats

# Denser near zero, where most weights are. Not symmetric: no level is exactly zero.
IQ4_LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
IQ4_LEVELS.flags.writeable = False


class IQ4_NL(BlockCodec, ggml=GGMLType.IQ4_NL):
    block = np.dtype([("d", "<f2"), ("qs", "u1", 16)])  # w = d * level[q]

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return column(b["d"]) * IQ4_LEVELS[unpack(b["qs"], 4, 16)]


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
