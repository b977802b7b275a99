"""Blocks of 32 weights with one float16 scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0; Q8_1.

In the layouts `d` is the scale, `m` the minimum, `qs` the codes (or their low four bits), `qh` their fifth bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..gguf.types import GGMLType
from .bits import Codes, pack, unpack
from .codec import BlockCodec, BlockImportance, Blocks, CodecError, Floats
from .search import Ints, affine, signed_extreme, smallest, symmetric


class Q4_0(BlockCodec, ggml=GGMLType.Q4_0):
    block = np.dtype([("d", "<f2"), ("qs", "u1", 16)])  # w = d * (q - 8)
    needs_row_power = True

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return _symmetric(b, unpack(b["qs"], 4, 16), 8)

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        return _encode_symmetric(cls, x, 8, importance)


class Q4_1(BlockCodec, ggml=GGMLType.Q4_1):
    block = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])  # w = d * q + m
    needs_row_power = True

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return _affine(b, unpack(b["qs"], 4, 16))

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        return _encode_affine(cls, x, 15, importance)


class Q5_0(BlockCodec, ggml=GGMLType.Q5_0):
    block = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])  # w = d * (q - 16)
    needs_row_power = True

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return _symmetric(b, _five_bits(b), 16)

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        return _encode_symmetric(cls, x, 16, importance)


class Q5_1(BlockCodec, ggml=GGMLType.Q5_1):
    block = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])  # w = d * q + m
    needs_row_power = True

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return _affine(b, _five_bits(b))

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        return _encode_affine(cls, x, 31, importance)


class Q8_0(BlockCodec, ggml=GGMLType.Q8_0):
    block = np.dtype([("d", "<f2"), ("qs", "i1", 32)])  # w = d * q

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return b["qs"].astype(np.float32) * column(b["d"])

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        return _eight_bits(cls, x)[0]


class Q8_1(BlockCodec, ggml=GGMLType.Q8_1):
    # w = d * q; `s` is d times the sum of the codes. ggml uses it for activations only.
    block = np.dtype([("d", "<f2"), ("s", "<f2"), ("qs", "i1", 32)])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return b["qs"].astype(np.float32) * column(b["d"])

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, d = _eight_bits(cls, x)
        sums = b["qs"].sum(axis=1, dtype=np.int32, keepdims=True).astype(np.float32)
        b["s"] = (sums * d)[:, 0]
        return b


def column(scale: npt.NDArray[np.float16]) -> Floats:
    """float16[n] -> float32[n, 1]."""
    return scale.astype(np.float32)[:, None]


def half(codec: type[BlockCodec], scale: Floats) -> npt.NDArray[np.float16]:
    """float32[n, 1] -> float16[n]; CodecError where it is not finite: a weight is too large."""
    stored = scale[:, 0].astype("<f2")
    bad = ~np.isfinite(stored)
    if bad.any():
        raise CodecError(
            f"{codec.type.name}: a block holds a value too large for a float16 scale (it would be "
            f"{scale[bad, 0][0]:g}, at most 65504 fits); store this tensor as F32 or BF16"
        )
    return stored


def reciprocal(d: Floats) -> Floats:
    """1 / d, or 0 where d is zero or so small that 1 / d overflows: the stored float16 scale is 0 there anyway."""
    inverse: Floats = np.divide(np.float32(1), d)
    inverse[np.isinf(inverse)] = 0
    return inverse


def round_half_away(x: Floats) -> Floats:
    """C's roundf. (Adding 0.5 and truncating is not the same: 0.49999997 + 0.5 rounds up to 1.)"""
    magnitude = np.abs(x)
    whole = np.floor(magnitude)
    rounded: Floats = np.copysign(whole + np.floor(np.float32(2) * (magnitude - whole)), x)
    return rounded


def _eight_bits(cls: type[BlockCodec], x: Floats) -> tuple[Blocks, Floats]:
    """Blocks with `d` and `qs`, and the scales before they were rounded, float32[n, 1]."""
    d = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    b = np.empty(len(x), cls.block)
    b["d"], b["qs"] = half(cls, d), round_half_away(x * reciprocal(d)).astype(np.int8)
    return b, d


def _encode_symmetric(cls: type[BlockCodec], x: Floats, levels: int, importance: BlockImportance | None) -> Blocks:
    """The largest weight is the lowest code; with an importance, the scale is searched."""
    if importance is not None:
        d, found = symmetric(x, levels, importance.cost(x, importance.row_power))
        return _store(cls, d=d, codes=_truncate(found))
    d = signed_extreme(x) / np.float32(-levels)
    codes = _truncate(x * reciprocal(d) + np.float32(levels + 0.5))
    return _store(cls, d=d, codes=np.minimum(codes, 2 * levels - 1))


def _encode_affine(cls: type[BlockCodec], x: Floats, levels: int, importance: BlockImportance | None) -> Blocks:
    """From the smallest weight to the largest; with an importance, both ends are searched."""
    if importance is not None:
        cost = importance.cost(x, importance.row_power)
        d, minimum, found = affine(x, levels, cost, (-0.9, 0.05, 36))
        return _store(cls, d=d, m=-minimum, codes=_truncate(found))
    m = smallest(x)
    d = np.abs(x.max(axis=1, keepdims=True) - m) / np.float32(levels)  # not -0, of zeros of both signs
    codes = _truncate((x - m) * reciprocal(d) + np.float32(0.5))
    return _store(cls, d=d, m=m, codes=np.minimum(codes, levels))


def _truncate(x: Floats | Ints) -> Codes:
    return x.astype(np.uint8)


def _symmetric(b: Blocks, q: Codes, zero: int) -> Floats:
    w = q.astype(np.float32)
    w -= np.float32(zero)
    w *= column(b["d"])
    return w


def _affine(b: Blocks, q: Codes) -> Floats:
    w = q.astype(np.float32)
    w *= column(b["d"])
    w += column(b["m"])
    return w


def _five_bits(b: Blocks) -> Codes:
    codes: Codes = unpack(b["qs"], 4, 16) | unpack(b["qh"], 1, 1) << np.uint8(4)
    return codes


def _store(cls: type[BlockCodec], *, d: Floats, codes: Codes, m: Floats | None = None) -> Blocks:
    """Blocks from scales float32[n, 1] and codes uint8[n, 32]."""
    b = np.empty(len(codes), cls.block)
    b["d"] = half(cls, d)
    if m is not None:
        b["m"] = half(cls, m)
    b["qs"] = pack(codes & np.uint8(15), 4, 16)
    if "qh" in (cls.block.names or ()):
        b["qh"] = pack(codes >> np.uint8(4), 1, 1)
    return b
