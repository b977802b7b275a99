"""Added tokens: of tokenizer.json, and of the files that stand beside other vocabularies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...formats.errors import UnsupportedError
from ..checkpoint import Checkpoint, CheckpointError
from .table import USER_DEFINED, Table
from .tokenizer_json import TokenizerJson

_FILE = "added_tokens.json"
_CONFIG, _DECODER = "tokenizer_config.json", "added_tokens_decoder"
AGAIN = "Save the tokenizer again with a recent transformers, which writes it"
_RULES = ("lstrip", "rstrip", "single_word")


def put_added(table: Table, file: TokenizerJson, *, spaces: bool) -> None:
    """The added tokens of a file. One that is in the model already keeps its text."""
    for number, token in enumerate(file.added):
        said_in = f"added_tokens[{number}]"
        if table.text(token.id) not in (None, token.content):
            raise table.refuse(said_in, token.content, f"{table.text(token.id)!r}, as in the model's vocabulary")
        table.put_added(token.id, token.content, special=token.special, said_in=said_in, spaces=spaces)


def put_all_added(
    table: Table, checkpoint: Checkpoint, file: TokenizerJson | None, config: Mapping[str, Any], *, spaces: bool,
    folds: bool = False,
) -> None:  # fmt: skip
    """What other files add, in the order in which they overrule each other.

    UnsupportedError for a token that takes spaces or must stand alone where there is no tokenizer.json to embed: GGUF
    has no keys for that. Nor has it one for tokens that are found however a text writes them, where texts are folded to
    lower case (`folds`).
    """
    for number, token in enumerate(file.added if file else ()):
        said_in = f"tokenizer.json, added_tokens[{number}]"
        table.put_added(token.id, token.content, special=token.special, said_in=said_in, spaces=spaces)
    added = checkpoint.json(_FILE) or {}
    decoder = config.get(_DECODER) or {}
    if not isinstance(added, dict) or not isinstance(decoder, dict):
        raise CheckpointError("added tokens are no JSON object", path=checkpoint.path)
    for text, i in added.items():
        if table.text(i) != text:
            table.put_added(i, text, special=False, said_in=_FILE, spaces=spaces)
        if folds and str(i) not in decoder:
            _require_as_written(table, i, {"content": text}, f"{checkpoint.path}: {_FILE}, {text!r}")
    for digits, token in decoder.items():
        said_in = f"{_CONFIG}, {_DECODER}.{digits}"
        if not isinstance(token, dict) or not digits.isdecimal() or len(digits) > 9:
            raise table.refuse(said_in, token, "an id and an object")
        if file is None and int(digits) < table.room:
            _require_plain(token, f"{checkpoint.path}: {said_in}")
        special = token.get("special") is True
        table.put_added(int(digits), token.get("content"), special=special, said_in=said_in, spaces=spaces)
        if folds:
            _require_as_written(table, int(digits), token, f"{checkpoint.path}: {said_in}")


def _require_plain(token: Mapping[str, Any], said_in: str) -> None:
    if rules := [rule for rule in _RULES if token.get(rule)]:
        raise UnsupportedError(
            f"{said_in}: an added token with {' and '.join(rules)} cannot be converted without tokenizer.json. {AGAIN}"
        )


def _require_as_written(table: Table, i: int, token: Mapping[str, Any], said_in: str) -> None:
    text = token.get("content")
    is_word = isinstance(text, str) and text.lower() != text.upper() and not re.fullmatch(r"\[.*\]|<.*>", text)
    if is_word and table.types.get(i) == USER_DEFINED and token.get("normalized", True):
        raise UnsupportedError(
            f"{said_in}: an added token that texts in any case mean (normalized) cannot be converted without "
            f"tokenizer.json. {AGAIN}"
        )
