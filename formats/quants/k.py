"""Super-blocks of 256 weights, cut into groups of 16 or 32 with small integer scales of their own: Q2_K ... Q6_K; Q8_K.

In the layouts `d` scales the groups' scales and `dmin` scales the groups' minima.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..gguf.types import GGMLType
from .basic import column, half
from .bits import Codes, pack, unpack
from .codec import BlockCodec, BlockImportance, Blocks, Floats
from .search import NOTHING, Ints, affine, nearest, positive, signed_extreme, symmetric, symmetric_by_turns, total


class Q2_K(BlockCodec, ggml=GGMLType.Q2_K):
    # 16 groups of 16: w = d * scale * q - dmin * min; a byte of `scales` holds scale (low nibble) and min (high).
    block = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        scale = column(b["d"]) * (b["scales"] & np.uint8(15)).astype(np.float32)
        minimum = column(b["dmin"]) * (b["scales"] >> np.uint8(4)).astype(np.float32)
        return _grouped(scale, unpack(b["qs"], 2, 32), minimum)

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, groups = np.zeros(len(x), cls.block), _groups(x, 16)
        if importance is None:
            found = affine(groups, 3, np.abs(groups), (-0.5, 0.1, 15), by_magnitude=True)
            scales, minima = (_largest_is(15, v.reshape(-1, 16)) for v in found[:2])
        else:
            cost = _groups(importance.cost(x, _mean_square(x)), 16)
            found = affine(groups, 3, cost, (-0.9, 0.05, 36))
            scales, minima = (positive(v.reshape(-1, 16), 15, total(cost).reshape(-1, 16)) for v in found[:2])
        b["d"], b["dmin"] = half(cls, scales[0]), half(cls, minima[0])
        low, high = (codes.astype(np.uint8) for codes in (scales[1], minima[1]))
        b["scales"] = low | high << np.uint8(4)
        d, m = column(b["d"]) * (b["scales"] & 15).astype(np.float32), column(b["dmin"]) * (b["scales"] >> 4)
        b["qs"] = pack(_codes(x, d, found[2], 0, 3, m), 2, 32)
        return b


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

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, groups = np.zeros(len(x), cls.block), _groups(x, 16)
        if importance is None:
            scales, found = symmetric_by_turns(groups, 4)
            d, six_bits = _signed_scales(scales.reshape(-1, 16), 32)
        else:
            cost = _groups(importance.cost(x, np.float32(2) * _mean_square(x)), 16)
            scales, found = symmetric(groups, 4, cost)
            d, six_bits = symmetric(scales.reshape(-1, 16), 32, total(cost).reshape(-1, 16))
        b["d"] = half(cls, d)
        packed = six_bits.astype(np.uint8)
        b["scales"] = np.hstack([pack(packed & 15, 4, 8), pack(packed >> 4, 2, 4)])
        codes = _codes(x, column(b["d"]) * (six_bits - 32).astype(np.float32), found, -4, 3)
        b["qs"], b["hmask"] = pack(codes & 3, 2, 32), pack(codes >> 2, 1, 32)
        return b


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

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, codes = _affine_blocks(cls, x, 15, (-1.0, 0.1, 20), importance)
        b["qs"] = pack(codes, 4, 32)
        return b


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

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, codes = _affine_blocks(cls, x, 31, (-0.5, 0.1, 15), importance)
        b["qs"], b["qh"] = pack(codes & 15, 4, 32), pack(codes >> 4, 1, 32)
        return b


class Q6_K(BlockCodec, ggml=GGMLType.Q6_K):
    # 16 groups of 16: w = d * scale * (q - 32); `ql` holds the low four bits of q, `qh` the upper two.
    block = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        scale = column(b["d"]) * b["scales"].astype(np.float32)
        q = unpack(b["ql"], 4, 64) | unpack(b["qh"], 2, 32) << np.uint8(4)
        return _grouped(scale, q.view(np.int8) - np.int8(32))

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, groups = np.zeros(len(x), cls.block), _groups(x, 16)
        cost = groups * groups if importance is None else _groups(importance.columns, 16)
        scales, found = symmetric(groups, 32, cost)
        scales = scales.reshape(-1, 16)
        d, eight_bits = _signed_scales(scales, 128)
        kept = ~(np.abs(scales).max(axis=1) < NOTHING)  # NaN, of squares that are infinite, is refused by `half`
        b["d"] = half(cls, np.where(kept[:, None], d, np.float32(0)))
        b["scales"] = np.where(kept[:, None], eight_bits - 128, 0)
        codes = _codes(x, column(b["d"]) * b["scales"].astype(np.float32), found, -32, 31)
        codes[~kept] = 0
        b["ql"], b["qh"] = pack(codes & 15, 4, 64), pack(codes >> 4, 2, 32)
        return b


class Q8_K(BlockCodec, ggml=GGMLType.Q8_K):
    # w = d * q; `bsums` holds the sum of each 16 codes. ggml uses it for activations only.
    block = np.dtype([("d", "<f4"), ("qs", "i1", 256), ("bsums", "<i2", 16)])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return b["qs"].astype(np.float32) * b["d"].astype(np.float32)[:, None]

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, inverse = np.zeros(len(x), cls.block), np.float32(-127) / signed_extreme(x)
        inverse[np.isinf(inverse)] = 0
        b["qs"] = np.minimum(nearest(inverse * x), 127)
        b["d"] = np.divide(np.float32(1), inverse, out=np.zeros_like(inverse), where=inverse != 0)[:, 0]
        b["bsums"] = b["qs"].reshape(-1, 16, 16).sum(axis=2, dtype=np.int16)
        return b


def six_bit_pairs(packed: Codes) -> tuple[Codes, Codes]:
    """uint8[n, 12] -> scales uint8[n, 8], mins uint8[n, 8].

    The first four scales and mins sit in the low six bits of bytes 0-3 and 4-7. Of the last four, the low nibbles
    (scale, min) share bytes 8-11, and the upper two bits fill bytes 0-3 (scale) and 4-7 (min).
    """
    first, second, shared = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.hstack([first & np.uint8(63), shared & np.uint8(15) | first >> np.uint8(6) << np.uint8(4)])
    mins = np.hstack([second & np.uint8(63), shared >> np.uint8(4) | second >> np.uint8(6) << np.uint8(4)])
    return scales, mins


def packed_pairs(scales: Codes, mins: Codes) -> Codes:
    """The inverse of `six_bit_pairs`."""
    upper = [(v[:, 4:] >> np.uint8(4)) << np.uint8(6) for v in (scales, mins)]
    shared = scales[:, 4:] & np.uint8(15) | (mins[:, 4:] & np.uint8(15)) << np.uint8(4)
    return np.hstack([scales[:, :4] | upper[0], mins[:, :4] | upper[1], shared])


def _groups(x: Floats, size: int) -> Floats:
    return x.reshape(-1, size)


def _mean_square(x: Floats) -> Floats:
    """Of each block: float32[n, 256] -> float32[n, 1]."""
    mean: Floats = total(x * x) / np.float32(256)
    return mean


def _largest_is(levels: int, v: Floats) -> tuple[Floats, Ints]:
    """A scale for those of groups (or their minima), float32[n, groups], not negative: the largest is `levels`."""
    most = np.maximum(v.max(axis=1, keepdims=True), np.float32(0))
    inverse = np.where(most > 0, np.float32(levels) / most, np.float32(0))
    return most / np.float32(levels), nearest(inverse * v)


def _signed_scales(v: Floats, levels: int) -> tuple[Floats, Ints]:
    """The same where the sign may be either: the one of largest magnitude is -levels. Codes are counted from there."""
    extreme = signed_extreme(v)
    inverse = np.float32(-levels) / extreme
    codes = np.clip(nearest(inverse * v), -levels, levels - 1) + levels
    is_zero = extreme == 0
    return np.where(is_zero, np.float32(0), np.float32(1) / inverse), np.where(is_zero, 0, codes)


def _affine_blocks(
    cls: type[BlockCodec], x: Floats, levels: int, tries: tuple[float, float, int], importance: BlockImportance | None
) -> tuple[Blocks, Codes]:
    """Blocks of Q4_K or Q5_K with all but the codes, and these."""
    b, groups = np.zeros(len(x), cls.block), _groups(x, 32)
    if importance is None:
        cost = np.sqrt(total(groups * groups) / np.float32(32)) + np.abs(groups)
        found = affine(groups, levels, cost, tries)
        scales, minima = (_largest_is(63, v.reshape(-1, 8)) for v in found[:2])
    else:
        cost = _groups(importance.cost(x, np.float32(2) * _mean_square(x)), 32)
        found = affine(groups, levels, cost, (-0.9, 0.05, 36))
        scales, minima = (positive(v.reshape(-1, 8), 63, total(cost).reshape(-1, 8)) for v in found[:2])
    b["d"], b["dmin"] = half(cls, scales[0]), half(cls, minima[0])
    codes = [v[1].astype(np.uint8) for v in (scales, minima)]
    if importance is None or cls is not Q4_K:
        codes = [np.minimum(v, 63) for v in codes]
    # Else one below zero, a byte of almost 256 by now, runs into the bits of others, and ggml takes what they become.
    b["scales"] = packed_pairs(*codes)
    d, m = (
        column(b[name]) * stored.astype(np.float32)
        for name, stored in zip(("d", "dmin"), six_bit_pairs(b["scales"]), strict=True)
    )
    return b, _codes(x, d, found[2], 0, levels, m)


def _codes(x: Floats, d: Floats, found: Ints, low: int, high: int, m: Floats | None = None) -> Codes:
    """Codes of weights, from 0, once the scales of their groups are rounded: d and m float32[n, groups], x [n, 256].

    Where a scale has become zero, those found before stay.
    """
    groups = x.reshape(*d.shape, -1)
    scale = d[:, :, None]
    shifted = groups if m is None else groups + m[:, :, None]
    codes = np.clip(nearest(shifted / scale), low, high) - low
    kept: Codes = np.where(scale == 0, found.reshape(groups.shape), codes).astype(np.uint8)
    return kept.reshape(x.shape)


def _grouped(scale: Floats, q: npt.NDArray[np.uint8 | np.int8], minimum: Floats | None = None) -> Floats:
    """scale * q - minimum with scale and minimum float32[n, groups], q [n, 256] -> float32[n, 256]."""
    n, groups = scale.shape
    w = q.reshape(n, groups, -1).astype(np.float32)
    w *= scale[:, :, None]
    if minimum is not None:
        w -= minimum[:, :, None]
    return w.reshape(n, -1)
