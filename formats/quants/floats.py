"""Plain floating-point types: one weight per block, nothing scaled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..gguf.types import GGMLType
from .codec import BlockCodec, BlockImportance, Blocks, Floats


class F32(BlockCodec, ggml=GGMLType.F32):
    block = np.dtype([("x", "<f4")])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return b["x"].astype(np.float32)[:, None]

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        return x.astype("<f4").view(cls.block)[:, 0]


class F16(BlockCodec, ggml=GGMLType.F16):
    """IEEE half precision. Encoding rounds to nearest even; values beyond 65504 become infinite."""

    block = np.dtype([("x", "<f2")])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return b["x"].astype(np.float32)[:, None]

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        return x.astype("<f2").view(cls.block)[:, 0]


class BF16(BlockCodec, ggml=GGMLType.BF16):
    """The upper 16 bits of a float32. Encoding rounds to nearest even; NaN stays NaN and becomes quiet."""

    block = np.dtype([("x", "<u2")])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        bits: Floats = (b["x"].astype(np.uint32) << np.uint32(16)).view(np.float32)
        return bits[:, None]

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        bits = x.view(np.uint32)
        # Cutting a signalling NaN to 16 bits could leave an infinity, hence the quiet bit; its low half is
        # cleared so that rounding cannot carry into the exponent.
        quiet = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x00400000)
        bits = np.where(np.isnan(x), quiet, bits)
        bits = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
        rounded: npt.NDArray[np.uint32] = bits >> np.uint32(16)
        return rounded.astype("<u2").view(cls.block)[:, 0]
