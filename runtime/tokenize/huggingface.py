"""Tokenizers that no other kind here can express: an embedded `tokenizer.json`, run by `tokenizers`.

The file is data of a stranger. It is bounded and parsed strictly before the engine sees it; loading it opens nothing
and runs nothing; and what it says of truncation and padding is dropped, since both would change what a text is.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ...formats.errors import TokenizerError
from ...formats.strict_json import JsonError, loads
from .charsmap import check_charsmap
from .engine import Check, run
from .vocabulary import CONTROL, HUGGINGFACE_KEY, UNKNOWN, Vocabulary

MAX_CHARS = 128 << 20  # the largest real ones have a quarter of that
MAX_GROWTH = 256  # a hostile one could answer one letter with gigabytes; real ones stay below 20
# What would change how long a text is, or is not our concern.
_DROPPED = {"truncation": None, "padding": None, "post_processor": None, "decoder": None}


class HuggingFaceEncoder:
    """Encodes whole texts, special tokens included: only such a file says which spaces they take, and in which order.

    A token counts as special where the vocabulary says CONTROL, whatever the file says, so that texts which must not
    hold special tokens cannot spell one.
    """

    def __init__(self, vocabulary: Vocabulary, check: Check) -> None:
        count = len(vocabulary.tokens)
        self._special = frozenset(vocabulary.ids_of_type(CONTROL, UNKNOWN)) - {vocabulary.special.get("unk")}
        text = _prepared(vocabulary.huggingface, self._special)
        # Whether special tokens are found is a property of an engine, and engines are shared by threads: two of them.
        self._plain, self._parsing = (_engine(text, count, check) for _ in range(2))
        self._plain.encode_special_tokens = True  # as text

    def encode(self, text: str, *, after_special: bool) -> list[int]:
        """Ids of a text in which special tokens are text."""
        return self.encode_whole(text, parse_special=False)

    def encode_whole(self, text: str, *, parse_special: bool) -> list[int]:
        """Ids of a text, in which special tokens are found or are text like any other."""
        if parse_special:
            return run(self._parsing, text)
        ids = run(self._plain, text)
        return ids if self._special.isdisjoint(ids) else list(self._without_special(text))

    def _without_special(self, text: str) -> Iterator[int]:
        """Where a word that looks like a special token became one, the ids of its characters."""
        found = self._plain.encode(text, add_special_tokens=False)
        for i, (start, end) in zip(found.ids, found.offsets, strict=True):
            if i not in self._special:
                yield i
                continue
            for char in text[start:end]:
                yield from (piece for piece in run(self._plain, char) if piece not in self._special)


def _prepared(text: str, special: frozenset[int | None]) -> str:
    """The file with our idea of which tokens are special, and without truncation and padding."""
    if len(text) > MAX_CHARS:
        raise TokenizerError(f"'{HUGGINGFACE_KEY}' has {len(text):,} characters; {MAX_CHARS:,} are allowed")
    try:
        content = loads(text)
    except JsonError as error:
        raise TokenizerError(f"'{HUGGINGFACE_KEY}': {error.problem}") from None
    added = content.get("added_tokens") or [] if isinstance(content, dict) else None
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise TokenizerError(f"'{HUGGINGFACE_KEY}' is no tokenizer: its 'added_tokens' are no list of objects")
    _check_growth(content.get("normalizer"))
    tokens = [{**token, "special": token.get("id") in special} for token in added]
    return json.dumps({**content, "added_tokens": tokens} | _DROPPED, ensure_ascii=False)


def _check_growth(normalizer: Any) -> None:
    """TokenizerError for steps that together could make a text too many times as long as it is."""
    growth, left = 1, [normalizer]
    while left and growth <= MAX_GROWTH:
        match left.pop():
            case {"normalizers": list(steps)}:
                left += steps
            case {"content": str(content)} | {"prepend": str(content)}:
                growth *= max(1, len(content))
            case {"precompiled_charsmap": str(text)}:
                growth *= _longest_replacement(text)
    if growth > MAX_GROWTH:
        raise TokenizerError(f"'{HUGGINGFACE_KEY}' makes texts more than {MAX_GROWTH:,} times as long")


def _longest_replacement(text: str) -> int:
    """Bytes. TokenizerError for a character map that leads out of itself."""
    try:
        blob = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise TokenizerError(f"'{HUGGINGFACE_KEY}' has a character map that is no base64") from None
    check_charsmap(blob)
    texts = blob[4 + int.from_bytes(blob[:4], "little") :]
    return max(1, *map(len, texts.split(b"\0")))


def _engine(text: str, count: int, check: Check) -> Any:
    """An engine whose ids are all below `count`."""
    from tokenizers import Tokenizer

    check()
    try:
        engine = Tokenizer.from_str(text)
        vocabulary: Mapping[str, int] = engine.get_vocab(with_added_tokens=True)
    except BaseException as error:
        # The binding's panic derives from BaseException.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"'{HUGGINGFACE_KEY}' cannot be used: {str(error)[:200]}") from None
    if max(vocabulary.values(), default=0) >= count:
        raise TokenizerError(f"'{HUGGINGFACE_KEY}' has more than the {count:,} tokens of 'tokenizer.ggml.tokens'")
    return engine
