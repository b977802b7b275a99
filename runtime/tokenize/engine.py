"""Calling the Rust engine, and remembering what it said."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...formats.errors import TokenizerError

_MAX_CHUNKS = 1 << 16  # remembered chunks: some 10 MB
_MAX_CHUNK_CHARS = 64

# Called right before an engine is made, which holds Python's lock for some tens of milliseconds and cannot be stopped;
# raises what should happen instead.
Check = Callable[[], None]


def run(engine: Any, text: str) -> list[int]:
    """Ids of `text`. Every failure, a panic included, becomes a TokenizerError."""
    try:
        return list(engine.encode(text, add_special_tokens=False).ids)
    except Exception as error:
        raise _failure(text, error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the binding's panic derives from BaseException
            raise
        raise _failure(text, error) from error


class ChunkCache:
    """Ids of chunks that are tokenized independently of each other.

    Safe to share between threads: entries are only added, or dropped all together, and each is right by itself.
    """

    def __init__(self, encode_chunk: Callable[[str], list[int]]) -> None:
        self._encode_chunk = encode_chunk
        self._known: dict[str, list[int]] = {}

    def encode(self, chunks: Iterable[str]) -> list[int]:
        """The ids of all chunks, one after the other."""
        known, ids = self._known, []
        for chunk in chunks:
            found = known.get(chunk)
            ids += found if found is not None else self._learn(chunk)
        return ids

    def _learn(self, chunk: str) -> list[int]:
        ids = self._encode_chunk(chunk)
        if len(chunk) <= _MAX_CHUNK_CHARS:
            if len(self._known) >= _MAX_CHUNKS:
                self._known.clear()
            self._known[chunk] = ids
        return ids


def _failure(text: str, error: BaseException) -> TokenizerError:
    return TokenizerError(f"this text of {len(text):,} characters cannot be tokenized: {error}")
