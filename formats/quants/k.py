"""Super-blocks of 256 weights, cut into groups of 16 or 32 with small integer scales of their own: Q2_K ... Q6_K.

In the layouts `d` scales the groups' scales and `dmin` scales the groups' minima.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..gguf.types import GGMLType
from .basic import column
from .bits import Codes, unpack
from .codec import BlockCodec, Blocks, Floats


class Q2_K(BlockCodec, ggml=GGMLType.Q2_K):
    # 16 groups of 16: w = d * scale * q - dmin * min; a byte of `scales` holds scale (low nibble) and min (high).
    block = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        scale = column(b["d"]) * (b["scales"] & np.uint8(15)).astype(np.float32)
        minimum = column(b["dmin"]) * (b["scales"] >> np.uint8(4)).astype(np.float32)
        return _grouped(scale, unpack(b["qs"], 2, 32), minimum)


class Q3_K(BlockCodec, ggml=GGMLType.Q3_K):
    # 16 groups of 16: w = d * (scale - 32) * (q - 4); `hmask` holds the third bit of q, `qs` the lower two.
    # A scale has six bits: four in the first 8 bytes of `scales`, two in the last 4.
    block = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        low, high = unpack(b["scales"][:, :8], 4, 8), unpack(b["scales"][:, 8:], 2, 4)
        scale = column(b["d"]) * ((low | high << np.uint8(4)).astype(np.float32) - np.float32(32))
        q = unpack(b["qs"], 2, 32) | unpack(b["hmask"], 1, 32) << np.uint8(2)
        return _grouped(scale, q.view(np.int8) - np.int8(4))


class Q4_K(BlockCodec, ggml=GGMLType.Q4_K):
    # 8 groups of 32: w = d * scale * q - dmin * min; six-bit scales and mins, packed as `six_bit_pairs` says.
    block = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        scale, minimum = six_bit_pairs(b["scales"])
        return _grouped(
            column(b["d"]) * scale.astype(np.float32),
            unpack(b["qs"], 4, 32),
            column(b["dmin"]) * minimum.astype(np.float32),
        )


class Q5_K(BlockCodec, ggml=GGMLType.Q5_K):
    # As Q4_K, with a fifth bit per weight: bit g of qh[l] belongs to weight l of group g.
    block = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        scale, minimum = six_bit_pairs(b["scales"])
        return _grouped(
            column(b["d"]) * scale.astype(np.float32),
            unpack(b["qs"], 4, 32) | unpack(b["qh"], 1, 32) << np.uint8(4),
            column(b["dmin"]) * minimum.astype(np.float32),
        )


class Q6_K(BlockCodec, ggml=GGMLType.Q6_K):
    # 16 groups of 16: w = d * scale * (q - 32); `ql` holds the low four bits of q, `qh` the upper two.
    block = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        scale = column(b["d"]) * b["scales"].astype(np.float32)
        q = unpack(b["ql"], 4, 64) | unpack(b["qh"], 2, 32) << np.uint8(4)
        return _grouped(scale, q.view(np.int8) - np.int8(32))


def six_bit_pairs(packed: Codes) -> tuple[Codes, Codes]:
    """uint8[n, 12] -> scales uint8[n, 8], mins uint8[n, 8].

    The first four scales and mins sit in the low six bits of bytes 0-3 and 4-7. Of the last four, the low nibbles
    (scale, min) share bytes 8-11, and the upper two bits fill bytes 0-3 (scale) and 4-7 (min).
    """
    first, second, shared = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.hstack([first & np.uint8(63), shared & np.uint8(15) | first >> np.uint8(6) << np.uint8(4)])
    mins = np.hstack([second & np.uint8(63), shared >> np.uint8(4) | second >> np.uint8(6) << np.uint8(4)])
    return scales, mins


def _grouped(scale: Floats, q: npt.NDArray[np.uint8 | np.int8], minimum: Floats | None = None) -> Floats:
    """scale * q - minimum with scale and minimum float32[n, groups], q [n, 256] -> float32[n, 256]."""
    n, groups = scale.shape
    w = q.reshape(n, groups, -1).astype(np.float32)
    w *= scale[:, :, None]
    if minimum is not None:
        w -= minimum[:, :, None]
    return w.reshape(n, -1)
