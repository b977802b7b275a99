"""RWKV's world vocabulary: the longest token that matches the bytes, again and again."""

from __future__ import annotations

import re

from .vocabulary import Vocabulary

_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|[^x]|x)", re.DOTALL)
_NAMED = {"t": b"\t", "n": b"\n", "r": b"\r"}


class RwkvEncoder:
    """Greedy longest match. A byte that begins no token becomes the unknown token, or nothing when there is none."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids: dict[bytes, int] = {}
        lengths: dict[bytes, set[int]] = {}
        for token, i in vocabulary.ids.items():
            raw = unescape(token)
            self._ids[raw] = i
            lengths.setdefault(raw[:2], set()).add(len(raw))
        # By the first two bytes: few lengths remain to be tried at each position.
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}
        self._unknown = vocabulary.special.get("unk")

    def encode(self, text: str, *, after_special: bool) -> list[int]:
        """Ids of a piece of text without special tokens."""
        raw, pos, out = text.encode(), 0, []
        while pos < len(raw):
            length, token = self._longest(raw, pos)
            if token is not None:
                out.append(token)
            pos += length
        return out

    def _longest(self, raw: bytes, pos: int) -> tuple[int, int | None]:
        """(bytes consumed, id) at `pos`."""
        for length in self._lengths.get(raw[pos : pos + 2], ()):
            token = self._ids.get(raw[pos : pos + length])
            if token is not None:
                return length, token
        return 1, self._ids.get(raw[pos : pos + 1], self._unknown)


def unescape(token: str) -> bytes:
    r"""The bytes of a token written with \t, \n, \r, \xNN and \<char>."""
    out, done = bytearray(), 0
    for match in _ESCAPE.finditer(token):
        out += token[done : match.start()].encode()
        code = match[1]
        out += bytes([int(code[1:], 16)]) if len(code) == 3 else _NAMED.get(code, code.encode())
        done = match.end()
    return bytes(out + token[done:].encode())
