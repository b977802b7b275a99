"""Checking a precompiled SentencePiece character map before C++ follows its offsets without bounds.

Layout: u32 size of the trie in bytes, the trie (a double array of u32 units), replacement texts ended by NUL. A unit
holds an offset to its children, a label, and whether a value hangs below it (the darts-clone format).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import TokenizerError

_IS_VALUE = np.uint32(1 << 31)


def check_charsmap(blob: bytes) -> None:
    """Raise TokenizerError unless every unit and every replacement that can be reached lies inside the blob."""
    if not blob:
        return
    size = int.from_bytes(blob[:4], "little") if len(blob) >= 4 else 0
    texts = blob[4 + size :]
    if size < 1024 or size % 4 or 4 + size >= len(blob) or texts[-1:] != b"\0":
        raise _broken(f"a trie of {size:,} bytes in {len(blob):,}")
    units = np.frombuffer(blob, "<u4", size // 4, 4)
    children = np.arange(len(units), dtype=np.uint32) ^ _offset(units)
    inner = (units & _IS_VALUE) == 0
    # Matching reads unit (children ^ byte) for any byte.
    if (children[inner] | 0xFF).max(initial=0) >= len(units):
        raise _broken("a child beyond the end of the trie")
    has_value = inner & (units & 0x100 != 0)
    values = units[children[has_value]]
    if ((values & ~_IS_VALUE) >= len(texts)).any():
        raise _broken("a replacement beyond the end of the texts")


def _offset(units: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return ((units >> 10) << ((units & 0x200) >> 6)).astype(np.uint32)


def _broken(what: str) -> TokenizerError:
    return TokenizerError(f"'tokenizer.ggml.precompiled_charsmap' is broken: {what}; convert the model again")
