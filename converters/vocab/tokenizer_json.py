"""tokenizer.json, read by name: the parts that every kind of tokenizer has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint, CheckpointError
from ..config import Config

NAME = "tokenizer.json"


@dataclass(frozen=True)
class Added:
    """An added token. `plain`: it is found as it stands, without taking spaces or minding what is beside it."""

    id: Any
    content: Any
    special: bool
    plain: bool
    normalized: bool


class TokenizerJson:
    """The file. `text` is all of it, `model` its model, `added` its added tokens, in the file's order."""

    def __init__(self, path: Path, text: str, content: Any) -> None:
        if not isinstance(content, dict):
            raise CheckpointError("not a JSON object", path=path)
        self.path, self.text = path, text
        self.root = Config(content, path)
        self.model = self.root.inner("model")
        self.kind = self.model.text("type", self._kind())
        self.normalizer, self.pre_tokenizer = content.get("normalizer"), content.get("pre_tokenizer")
        self.post_processor = content.get("post_processor")
        self.added = list(self._added(content.get("added_tokens")))

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> TokenizerJson | None:
        """That of a folder, None where there is none. Raises CheckpointError."""
        content = checkpoint.json(NAME)
        text = checkpoint.text(NAME) if content is not None else None
        return None if text is None else cls(checkpoint.path / NAME, text, content)

    def within(self, room: int) -> str:
        """The file without added tokens that a model of so many rows has none for."""
        if not any(_is_beyond(token.id, room) for token in self.added):
            return self.text
        kept = [token for token in self.root.fields["added_tokens"] if not _is_beyond(token.get("id"), room)]
        return json.dumps({**self.root.fields, "added_tokens": kept}, ensure_ascii=False)

    def _kind(self) -> str | None:
        """Old files do not name the kind of their model."""
        fields = self.model.fields
        if "merges" in fields:
            return "BPE"
        if "continuing_subword_prefix" in fields:
            return "WordPiece"
        return "Unigram" if "unk_id" in fields else None

    def _added(self, given: Any) -> Iterator[Added]:
        if not isinstance(given or [], list):
            raise self.root.refuse("added_tokens", given, "a list")
        for token in given or []:
            if not isinstance(token, dict):
                raise self.root.refuse("added_tokens", token, "objects")
            plain = not (token.get("lstrip") or token.get("rstrip") or token.get("single_word"))
            special = token.get("special") is True
            yield Added(
                token.get("id"), token.get("content"), special, plain, bool(token.get("normalized", not special))
            )


def _is_beyond(i: Any, room: int) -> bool:
    return type(i) is int and i >= room
