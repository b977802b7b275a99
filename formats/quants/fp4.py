"""Four-bit floating point: MXFP4 (OCP Microscaling), with a power of two for 32, and NVFP4, with 8 bits for 16."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..gguf.types import GGMLType
from .bits import Codes, pack, unpack
from .codec import BlockCodec, BlockImportance, Blocks, Floats

# Twice the values of E2M1, so that they are integers; decoding halves the scale instead. Code 8, -0, reads as +0, as in
# ggml.
E2M1_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
E2M1_DOUBLED.flags.writeable = False


class MXFP4(BlockCodec, ggml=GGMLType.MXFP4):
    block = np.dtype([("e", "u1"), ("qs", "u1", 16)])  # w = 2**(e - 128) * (2 * E2M1)[q]

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return half_power(b["e"])[:, None] * E2M1_DOUBLED[unpack(b["qs"], 4, 16)]

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, most = np.empty(len(x), cls.block), np.abs(x).max(axis=1)
        # As C's log2f: rounded to float32, so a number just below a large power of two counts as that power.
        exponent = np.floor(np.log2(most.astype(np.float64)).astype(np.float32)) + np.float32(125)
        b["e"] = np.where(most > 0, exponent, np.float32(0)).astype(np.int32).astype(np.uint8)
        b["qs"] = pack(_nearest_level(x, half_power(b["e"])[:, None]), 4, 16)
        return b


class NVFP4(BlockCodec, ggml=GGMLType.NVFP4):
    # 4 groups of 16: w = scale / 2 * (2 * E2M1)[q]; scales without sign, E4M3.
    block = np.dtype([("d", "u1", 4), ("qs", "u1", 32)])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        w = E2M1_DOUBLED[unpack(b["qs"], 4, 8)].reshape(len(b), 4, 16)
        w *= HALF_UE4M3[b["d"]][:, :, None]
        return w.reshape(len(b), 64)

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, groups = np.empty(len(x), cls.block), x.reshape(-1, 4, 16)
        b["d"] = to_ue4m3(np.abs(groups).max(axis=2) / np.float32(6))
        codes = _nearest_level(groups, HALF_UE4M3[b["d"]][:, :, None])
        b["qs"] = pack(codes.reshape(len(x), 64), 4, 8)
        return b


def half_power(e: npt.NDArray[np.uint8]) -> Floats:
    """2**(e - 128) as float32, exactly. ggml gives 255 no special meaning (OCP: NaN)."""
    wide = e.astype(np.uint32)
    normal = (np.maximum(wide, 1) - np.uint32(1)) << np.uint32(23)
    subnormal = np.uint32(1 << 21) << np.minimum(wide, 1)  # 2**-128 and 2**-127 lie below the smallest exponent
    bits: npt.NDArray[np.uint32] = np.where(wide < 2, subnormal, normal)
    return bits.view(np.float32)


def _half_ue4m3() -> Floats:
    """Half the value of every unsigned E4M3: float32[256]. As in ggml, 127 is zero, not NaN; bit 7 is ignored."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, (code & 7).astype(np.float32)
    value = np.where(exponent == 0, np.ldexp(mantissa, -9), np.ldexp(1 + mantissa / 8, exponent - 7))
    value[[0, 127]] = 0
    return (value / 2).astype(np.float32)


HALF_UE4M3 = _half_ue4m3()
HALF_UE4M3.flags.writeable = False


def to_ue4m3(x: Floats) -> Codes:
    """Unsigned E4M3 of numbers that are not negative: the nearest up to 240, half away from zero.

    Of the codes above, ggml makes only that of 448, the largest: it stands for all that would round to 256 or more.
    """
    bits = x.view(np.int32)
    small = np.minimum(x * np.float32(512) + np.float32(0.5), np.float32(7)).astype(np.int32)
    rounded = (bits >> 20) + (bits >> 19 & 1)  # the exponent with three bits behind it; a carry goes up into it
    normal = np.where(rounded < (127 + 8) << 3, rounded - (120 << 3), 0x7E)
    codes: Codes = np.where(bits >> 23 <= 120, small, normal).astype(np.uint8)
    return codes


def _nearest_level(x: Floats, scale: Floats) -> Codes:
    """Codes of the nearest values; the first of those that are equally near."""
    codes, least = np.zeros(x.shape, np.uint8), np.abs(E2M1_DOUBLED[0] * scale - x)
    for code in range(1, 16):
        off = np.abs(E2M1_DOUBLED[code] * scale - x)
        nearer = off < least
        codes[nearer], least = code, np.where(nearer, off, least)
    return codes
