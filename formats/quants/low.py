"""One or two bits a weight and one scale: TQ1_0 and TQ2_0 (-1, 0, 1), Q1_0 (the sign), Q2_0 (-1, 0, 1, 2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..gguf.types import GGMLType
from .basic import column, half, reciprocal, round_half_away
from .bits import Codes, pack, unpack
from .codec import BlockCodec, BlockImportance, Blocks, Floats
from .search import total


class TQ2_0(BlockCodec, ggml=GGMLType.TQ2_0):
    block = np.dtype([("qs", "u1", 64), ("d", "<f2")])  # w = d * (q - 1)

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return _around_one(unpack(b["qs"], 2, 32)) * column(b["d"])

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, (d, codes) = np.empty(len(x), cls.block), _scaled(x)
        b["d"], b["qs"] = half(cls, d), pack(codes & 3, 2, 32)
        return b


class TQ1_0(BlockCodec, ggml=GGMLType.TQ1_0):
    # w = d * (trit - 1). A byte holds five trits (`qh`: four): byte m of a run the trits m, m + run, m + 2 * run, ...
    # They are the digits of a fraction of 256, most significant first, so that each falls out of a multiplication by 3.
    block = np.dtype([("qs", "u1", 48), ("qh", "u1", 4), ("d", "<f2")])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        trits = _over_runs(lambda name, lo, hi, _: _trits(b[name][:, lo:hi], 4 if name == "qh" else 5))
        return _around_one(np.hstack(trits)) * column(b["d"])

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, (d, trits) = np.empty(len(x), cls.block), _scaled(x)
        b["d"] = half(cls, d)

        def store(name: str, lo: int, hi: int, first: int) -> None:
            count = 4 if name == "qh" else 5
            digits = trits[:, first : first + (hi - lo) * count].reshape(len(x), count, hi - lo)
            weights = np.array([81, 27, 9, 3, 1], np.uint16)[:count, None]
            number = (digits * weights).sum(axis=1, dtype=np.uint16)
            b[name][:, lo:hi] = (number * np.uint16(256) + np.uint16(242)) // np.uint16(243)

        _over_runs(store)
        return b


class Q1_0(BlockCodec, ggml=GGMLType.Q1_0):
    block = np.dtype([("d", "<f2"), ("qs", "u1", 16)])  # w = d where the bit is set, else -d

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        d = column(b["d"])
        return np.where(unpack(b["qs"], 1, 1) != 0, d, -d)

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b = np.empty(len(x), cls.block)
        b["d"] = half(cls, total(np.abs(x)) / np.float32(128))
        b["qs"] = pack((x >= 0).astype(np.uint8), 1, 1)
        return b


class Q2_0(BlockCodec, ggml=GGMLType.Q2_0):
    block = np.dtype([("d", "<f2"), ("qs", "u1", 16)])  # w = d * (q - 1)

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return _around_one(unpack(b["qs"], 2, 1)) * column(b["d"])

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        b, (d, codes) = np.empty(len(x), cls.block), _scaled(x)
        b["d"], b["qs"] = half(cls, d), pack(codes, 2, 1)
        return b


def _around_one(codes: Codes) -> Floats:
    w = codes.astype(np.float32)
    w -= np.float32(1)
    return w


def _scaled(x: Floats) -> tuple[Floats, Codes]:
    """The largest magnitude of each block, and codes 0, 1, 2 for -1, 0 and 1 times it."""
    d = np.abs(x).max(axis=1, keepdims=True)
    return d, (round_half_away(x * reciprocal(d)) + np.float32(1)).astype(np.uint8)


def _over_runs(body: Callable[[str, int, int, int], npt.NDArray[np.uint8] | None]) -> list[npt.NDArray[np.uint8]]:
    """body(field, first byte, end, first weight) for the runs of bytes of a block of TQ1_0."""
    return [body(*run) for run in (("qs", 0, 32, 0), ("qs", 32, 48, 160), ("qh", 0, 4, 240))]  # type: ignore[misc]


def _trits(packed: Codes, count: int) -> Codes:
    """uint8[n, bytes] -> uint8[n, count * bytes], each 0, 1 or 2: first that of all bytes which comes first."""
    powers = np.array([1, 3, 9, 27, 81], np.uint8)[:count, None]
    shifted = (packed[:, None, :] * powers).astype(np.uint16)
    trits: Codes = (shifted * np.uint16(3) >> np.uint16(8)).astype(np.uint8)
    return trits.reshape(len(packed), -1)
