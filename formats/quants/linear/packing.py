"""Codes of 2 to 8 bits in bytes. Libraries do it in two ways, each with a few turns of its own.

    pack     neighbours follow each other, the first in the lowest bits: one stream of bits for each row
             GPTQ (along the inputs), AWQ (neighbours in the order 0 2 4 6 1 3 5 7), compressed-tensors
    stripe   a byte or word holds codes that are far apart: of the first part of the rows, of the second, and so on
             quanto (the first part in the lowest bits), HQQ (in the highest), BitNet

Words of 32 bits are views of the bytes: `.view("<u4")`. Signed codes have their lowest code subtracted first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..codec import CodecError

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.integer[Any]]
Unsigned = npt.NDArray[np.unsignedinteger[Any]]


def pack(codes: Integers, bits: int) -> Bytes:
    """Codes [..., cols] from 0 to 2**bits - 1 -> uint8 [..., bytes], with zeros for what remains of the last byte."""
    _check_codes(codes, bits)
    spread = np.unpackbits(codes.astype(np.uint8)[..., None], axis=-1, count=bits, bitorder="little")
    return np.packbits(spread.reshape(*codes.shape[:-1], codes.shape[-1] * bits), axis=-1, bitorder="little")


def unpack(packed: Bytes, bits: int, cols: int) -> Bytes:
    """The inverse: uint8 [..., bytes] -> uint8 [..., cols]. CodecError where the bytes hold fewer codes."""
    _check_bits(bits)
    if packed.dtype != np.uint8 or not packed.ndim:
        raise CodecError(f"packed codes are rows of uint8, not {packed.dtype} of shape {packed.shape}")
    if not 0 <= cols * bits <= packed.shape[-1] * 8:
        raise CodecError(f"{packed.shape[-1]} bytes do not hold {cols} codes of {bits} bits")
    spread = np.unpackbits(packed, axis=-1, count=cols * bits, bitorder="little")
    return np.packbits(spread.reshape(*packed.shape[:-1], cols, bits), axis=-1, bitorder="little")[..., 0]


def stripe(codes: Integers, bits: int, word: npt.DTypeLike = np.uint8, *, first_is_high: bool = False) -> Unsigned:
    """Codes [rows, ...] from 0 to 2**bits - 1 -> words [rows / codes in a word, rounded up, ...].

    As many codes as fit share a word; bits above them are 0. Rows that are missing at the end count as zeros.
    """
    _check_codes(codes, bits)
    shifts = _shifts(bits, word, first_is_high)
    rows = -(-len(codes) // len(shifts))
    whole = np.zeros((rows * len(shifts), *codes.shape[1:]), word)
    whole[: len(codes)] = codes
    parts = whole.reshape(len(shifts), rows, *codes.shape[1:])
    found: Unsigned = np.bitwise_or.reduce(parts << shifts.reshape(-1, *[1] * codes.ndim), axis=0)
    return found


def unstripe(words: Unsigned, bits: int, rows: int, *, first_is_high: bool = False) -> Bytes:
    """The inverse: unsigned words [n, ...] -> uint8 [rows, ...]. CodecError where the words hold fewer rows."""
    if words.dtype.kind != "u" or not words.ndim:
        raise CodecError(f"words are unsigned integers in rows, not {words.dtype} of shape {words.shape}")
    shifts = _shifts(bits, words.dtype, first_is_high)
    if not 0 <= rows <= len(words) * len(shifts):
        raise CodecError(f"{len(words)} words hold {len(words) * len(shifts)} codes of {bits} bits, not {rows}")
    mask = words.dtype.type((1 << bits) - 1)
    parts = (words >> shifts.reshape(-1, *[1] * words.ndim)) & mask
    codes: Bytes = parts.reshape(-1, *words.shape[1:])[:rows].astype(np.uint8)
    return codes


def _shifts(bits: int, word: npt.DTypeLike, first_is_high: bool) -> Unsigned:
    _check_bits(bits)
    dtype = np.dtype(word)
    shifts = np.arange(dtype.itemsize * 8 // bits) * bits
    return (shifts[::-1] if first_is_high else shifts).astype(dtype)


def _check_bits(bits: int) -> None:
    if type(bits) is not int or not 2 <= bits <= 8:
        raise CodecError(f"a code has 2 to 8 bits, not {bits!r}")


def _check_codes(codes: Integers, bits: int) -> None:
    _check_bits(bits)
    if codes.dtype.kind not in "iu" or not codes.ndim:
        raise CodecError(f"codes are integers in rows, not {codes.dtype} of shape {codes.shape}")
    if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < 1 << bits:
        raise CodecError(f"codes from {codes.min()} to {codes.max()} do not fit {bits} bits from 0 on")
