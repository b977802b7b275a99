"""Tokens by id, put together from the files of a folder: what is repeated, missing or too much is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...formats.gguf import ValueType
from ..checkpoint import CheckpointError

Keys = dict[str, Any]
PREFIX = "tokenizer.ggml."
MAX_TOKENS = 1 << 22  # sixteen times the largest real vocabulary
MAX_TOKEN_CHARS = 1 << 12
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # tokenizer.ggml.token_type
_LOOKS_SPECIAL = re.compile(r"<pad>|<mask>|<2mass>|\[@BOS@\]|<\|.*\|>|<｜.*｜>|<unused.*>", re.DOTALL)


@dataclass
class Table:
    """texts, types and scores by id. `path` is the file that most of it comes from; `room` the rows of the model."""

    path: Path
    room: int
    texts: dict[int, str] = field(default_factory=dict)
    types: dict[int, int] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    def put(self, i: object, text: object, kind: int, score: float = 0.0, *, said_in: str) -> None:
        """A token, or a new idea of one that is there. Raises CheckpointError for ids that the model has no row for."""
        if type(i) is not int or not 0 <= i < min(self.room, MAX_TOKENS):
            raise self.refuse(said_in, i, f"ids below {self.room:,}, the size of the model's vocabulary")
        if not isinstance(text, str) or len(text) > MAX_TOKEN_CHARS:
            raise self.refuse(said_in, text, f"a text of up to {MAX_TOKEN_CHARS:,} characters")
        self.texts[i], self.types[i], self.scores[i] = text, kind, score

    def put_new(self, i: object, text: object, kind: int, score: float = 0.0, *, said_in: str) -> None:
        """A token whose id no other may have."""
        if self.text(i) is not None:
            raise CheckpointError(f"two tokens have the id {i}", path=self.path, field=said_in, got=text)
        self.put(i, text, kind, score, said_in=said_in)

    def put_added(self, i: object, text: object, *, special: bool, said_in: str, spaces: bool) -> None:
        """An added token. `spaces`: the vocabulary writes U+2581 for a space; added tokens are found in raw texts.

        One beyond the rows is left out: Gemma's files of text models name one that only images use.
        """
        if type(i) is int and i >= self.room:
            return
        special = special or (isinstance(text, str) and _LOOKS_SPECIAL.fullmatch(text) is not None)
        if spaces and not special and isinstance(text, str):
            text = text.replace("\u2581", " ")
        self.put(i, text, CONTROL if special else USER_DEFINED, -1000.0, said_in=said_in)

    def text(self, i: object) -> str | None:
        """The token of an id, or of what a file has in the place of one."""
        return self.texts.get(i) if type(i) is int else None

    def ids(self) -> dict[str, int]:
        """Text -> id."""
        return {text: i for i, text in self.texts.items()}

    def keys(self, *, scores: bool = False) -> Keys:
        """The lists of metadata, filled up with unused tokens to the rows of the model."""
        # Rows to spare are usual, since they make the number round: up to some percent, and more of small vocabularies.
        if 2 * len(self.texts) < self.room:
            raise CheckpointError(
                f"{len(self.texts):,} tokens, and the model has embeddings of {self.room:,}", path=self.path,
                hint="The tokenizer is another model's: download the whole folder again",
            )  # fmt: skip
        rows = range(self.room)
        texts = [self.texts.get(i, f"[PAD{i}]") for i in rows]
        if len(set(texts)) != len(texts):
            self._refuse_repeat(texts)
        found: Keys = {PREFIX + "tokens": (texts, ValueType.STRING)}
        if scores:
            found[PREFIX + "scores"] = ([self.scores.get(i, -10000.0) for i in rows], ValueType.FLOAT32)
        found[PREFIX + "token_type"] = ([self.types.get(i, UNUSED) for i in rows], ValueType.INT32)
        return found

    def refuse(self, said_in: str, got: object, allowed: str) -> CheckpointError:
        """The error for a value of the file; for the caller to raise."""
        return CheckpointError("the tokenizer does not fit", path=self.path, field=said_in, got=got, allowed=allowed)

    def _refuse_repeat(self, texts: list[str]) -> None:
        first: dict[str, int] = {}
        for i, text in enumerate(texts):
            if text and first.setdefault(text, i) != i:
                raise CheckpointError(f"the ids {first[text]} and {i} are the same token", path=self.path, got=text)


def by_text(given: Any, path: Path, said_in: str) -> Mapping[str, Any]:
    """A JSON object of tokens to ids. Raises CheckpointError."""
    if not isinstance(given, dict) or not given:
        raise CheckpointError("no tokens", path=path, field=said_in, got=type(given).__name__, allowed="an object")
    return given
