"""Checked access to `tokenizer.ggml.*` values: a wrong type or length is a TokenizerError that names the key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import TokenizerError

_PREFIX = "tokenizer.ggml."


def text(metadata: Mapping[str, Any], key: str) -> str | None:
    """A string, None when absent."""
    value = metadata.get(_PREFIX + key)
    if value is not None and not isinstance(value, str):
        raise _wrong(key, value, "a string")
    return value


def flag(metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    value = metadata.get(_PREFIX + key)
    if value is None:
        return default
    if not isinstance(value, bool | np.bool_):
        raise _wrong(key, value, "a bool")
    return bool(value)


def integer(metadata: Mapping[str, Any], key: str) -> int | None:
    value = metadata.get(_PREFIX + key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer)):
        raise _wrong(key, value, "an integer")
    return None if value is None else int(value)


def texts(metadata: Mapping[str, Any], key: str, *, required: bool = False) -> list[str]:
    """A list of strings, empty when absent and not required."""
    value = metadata.get(_PREFIX + key)
    if value is None:
        if required:
            raise TokenizerError(f"'{_PREFIX}{key}' is missing; convert the model again")
        return []
    if isinstance(value, np.ndarray) and not value.size:
        return []
    if not isinstance(value, list) or set(map(type, value)) - {str}:
        raise _wrong(key, value, "an array of strings")
    return value


def numbers(metadata: Mapping[str, Any], key: str, count: int, *, integer: bool = False) -> NDArray[Any] | None:
    """An array of exactly `count` numbers, None when absent."""
    value = metadata.get(_PREFIX + key)
    if value is None:
        return None
    array = np.asarray(value) if isinstance(value, list | np.ndarray) else np.zeros((0, 0))
    if array.ndim != 1 or array.dtype.kind not in ("iu" if integer else "iuf"):
        raise _wrong(key, value, "an array of integers" if integer else "an array of numbers")
    if len(array) != count:
        counts = f"{len(array):,} entries for {count:,} tokens"
        raise TokenizerError(f"'{_PREFIX}{key}' has {counts}; convert the model again")
    return array


def blob(metadata: Mapping[str, Any], key: str) -> bytes:
    """An array of int8 or uint8 as bytes, empty when absent."""
    value = metadata.get(_PREFIX + key)
    if value is None:
        return b""
    array = np.asarray(value) if isinstance(value, list | np.ndarray) else np.zeros((0, 0))
    is_bytes = array.ndim == 1 and array.dtype.kind in "iu" and (not array.size or array.min() >= -128)
    if not is_bytes or (array.size and array.max() > 255):
        raise _wrong(key, value, "an array of bytes")
    return (array.astype(np.int64) & 0xFF).astype(np.uint8).tobytes()


def byte_value(token: str) -> int | None:
    """The byte that a token of the form <0xNN> stands for."""
    if len(token) == 6 and token.startswith("<0x") and token[5] == ">":
        digits = token[3:5]
        if all(digit in "0123456789abcdefABCDEF" for digit in digits):
            return int(digits, 16)
    return None


def is_valid(token: str) -> bool:
    """Whether the token was valid UTF-8 in the file (invalid bytes arrive as lone surrogates)."""
    try:
        token.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong(key: str, value: object, wanted: str) -> TokenizerError:
    return TokenizerError(f"'{_PREFIX}{key}' must be {wanted}, not {type(value).__name__} {ascii(value)[:60]}")
