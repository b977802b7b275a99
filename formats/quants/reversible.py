"""Four-bit codes in blocks of Q8_0, which every GGUF program runs, and back again.

An int8 level is round(127 * level), the scale of both blocks of 64 weights float16(absmax / 127). Levels differ, so the
codes can be told from them (but for the second zero of FP4, which is the first one again), and an absmax from a scale
up to a rounding of float16. What a program that knows nothing of this computes with is off by half a step of 127 at
most.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from ..gguf.kinds import KINDS, Kind
from ..gguf.types import GGMLType
from .basic import Q8_0, half
from .bits import pack, unpack
from .codec import Bytes, codec_for
from .four_bit import levels_of
from .nf4 import run_of

_PAIR = 64  # weights in two blocks of Q8_0
_NONE = 255  # no code


@functools.cache
def int8_levels(codes: str) -> npt.NDArray[np.int8]:
    """The sixteen levels in units of a 127th, int8[16]."""
    levels: npt.NDArray[np.int8] = np.rint(levels_of(codes) * np.float32(127)).astype(np.int8)
    return levels


@functools.cache
def _code_of_byte(codes: str) -> npt.NDArray[np.uint8]:
    """The code of each int8 level by its byte; _NONE for bytes that are none."""
    found = np.full(256, _NONE, np.uint8)
    found[int8_levels(codes)[::-1].view(np.uint8)] = np.arange(15, -1, -1)  # the first of equal ones stays
    return found


def to_q8_0(rows: Bytes, kind: Kind) -> Bytes:
    """Rows of a kind as it is in memory, uint8[rows, row_bytes], as rows of Q8_0. Blocks of 32 cannot be told back."""
    codec = codec_for(kind.type)
    blocks = np.ascontiguousarray(rows).reshape(-1).view(codec.block)
    scale = blocks["d"].astype(np.float32)[:, None] / np.float32(127)
    b = np.empty((len(blocks), kind.block // 32), Q8_0.block)
    b["d"] = half(Q8_0, scale)[:, None]
    b["qs"] = int8_levels(kind.codes)[unpack(blocks["qs"], 4, run_of(kind))].reshape(len(blocks), -1, 32)
    return b.view(np.uint8).reshape(len(rows), -1)


def from_q8_0(rows: Bytes, type_: GGMLType) -> Bytes | None:
    """Rows of Q8_0 as rows of NF4 or FP4 in blocks of 64; None if they were not made of such, all of them."""
    kind = KINDS[type_]
    blocks = np.ascontiguousarray(rows).reshape(-1).view(Q8_0.block)
    if rows.shape[1] // Q8_0.block_bytes % 2 or not np.array_equal(blocks["d"][::2], blocks["d"][1::2]):
        return None
    codes = _code_of_byte(kind.codes)[blocks["qs"].view(np.uint8)]
    absmax = blocks["d"][::2].astype(np.float32) * np.float32(127)
    if (codes == _NONE).any() or not (np.abs(absmax) <= np.finfo(np.float16).max).all():
        return None
    b = np.empty(len(absmax), codec_for(type_).block)
    b["d"], b["qs"] = absmax, pack(codes.reshape(-1, _PAIR), 4, run_of(kind))
    return b.view(np.uint8).reshape(len(rows), -1)
