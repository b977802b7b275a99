"""Four-bit floating point with a shared power-of-two scale: MXFP4 (OCP Microscaling)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..gguf.types import GGMLType
from .bits import unpack
from .codec import BlockCodec, Blocks, Floats

# Twice the values of E2M1, so that they are integers; decoding halves the scale instead. Code 8, -0, reads as +0, as in
# ggml.
E2M1_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
E2M1_DOUBLED.flags.writeable = False


class MXFP4(BlockCodec, ggml=GGMLType.MXFP4):
    block = np.dtype([("e", "u1"), ("qs", "u1", 16)])  # w = 2**(e - 128) * (2 * E2M1)[q]

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return half_power(b["e"])[:, None] * E2M1_DOUBLED[unpack(b["qs"], 4, 16)]


def half_power(e: npt.NDArray[np.uint8]) -> Floats:
    """2**(e - 128) as float32, exactly. ggml gives 255 no special meaning (OCP: NaN)."""
    wide = e.astype(np.uint32)
    normal = (np.maximum(wide, 1) - np.uint32(1)) << np.uint32(23)
    subnormal = np.uint32(1 << 21) << np.minimum(wide, 1)  # 2**-128 and 2**-127 lie below the smallest exponent
    bits: npt.NDArray[np.uint32] = np.where(wide < 2, subnormal, normal)
    return bits.view(np.float32)
