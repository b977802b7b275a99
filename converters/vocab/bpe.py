"""Byte-pair vocabularies of tokenizer.json: of bytes (GPT-2 and its heirs), and of characters with U+2581 (Llama's)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...formats.errors import UnsupportedError
from ...formats.gguf import ValueType
from ...runtime.tokenize.keys import byte_value
from ...runtime.tokenize.vocabulary import NORMAL_FORM_KEY
from .added import put_added
from .structure import flat, is_byte_level, normal_form, pre_name
from .table import BYTE, NORMAL, PREFIX, UNKNOWN, Keys, Table, by_text
from .tokenizer_json import TokenizerJson

Merge = tuple[str, str]
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
_PREPEND = {"type": "Prepend", "prepend": "\u2581"}
# Gemma's, which finds no space any more when it comes to cut at spaces.
_SPLITS_NOTHING = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def byte_pairs(file: TokenizerJson, room: int) -> tuple[Table, Keys, bool]:
    """(tokens, keys, whether the runtime tokenizes by them exactly as the file says)."""
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if file.model.fields.get(name):
            raise UnsupportedError(f"{file.path}: BPE with 'model.{name}' cannot be converted")
    return _bytes(file, room) if is_byte_level(file.pre_tokenizer) else _characters(file, room)


def read_merges(file: TokenizerJson) -> list[Merge]:
    """Both forms: "a b", and pairs. Each side, and both together, must be tokens."""
    given, vocab = file.model.fields.get("merges"), file.model.fields["vocab"]
    if not isinstance(given, list):
        raise file.model.refuse("merges", given, "a list")
    merges: list[Merge] = []
    for i, merge in enumerate(given):
        match merge.split(" ") if isinstance(merge, str) else merge:
            case [str(left), str(right)] if left in vocab and right in vocab and left + right in vocab:
                merges.append((left, right))
            case _:
                raise file.model.refuse(f"merges[{i}]", merge, "two tokens that are a token together")
    return merges


def space_prefix(file: TokenizerJson) -> bool | None:
    """Whether each text gets a space in front; None where spaces become something that the runtime cannot do."""
    if file.pre_tokenizer not in (None, _SPLITS_NOTHING):
        return None
    match file.normalizer:
        case {"type": "Sequence", "normalizers": [first, second]} if first == _PREPEND and second == _REPLACE:
            return True
        case found if found == _REPLACE:
            return False
    return None


def _bytes(file: TokenizerJson, room: int) -> tuple[Table, Keys, bool]:
    table = _table(file, room, spaces=False)
    pairs = read_merges(file)
    if any(" " in left + right for left, right in pairs):
        raise file.model.refuse("merges", " ", "tokens without spaces in a vocabulary of bytes")
    keys: Keys = {
        PREFIX + "model": "gpt2",
        PREFIX + "merges": ([f"{left} {right}" for left, right in pairs], ValueType.STRING),
    }
    name = pre_name(file.pre_tokenizer, ignore_merges=file.model.flag("ignore_merges", default=False))
    form = normal_form(file.normalizer)
    if name is not None:
        keys[PREFIX + "pre"] = name
    if form:
        keys[NORMAL_FORM_KEY] = form
    plain = all(token.plain and not (form and token.normalized) for token in file.added)
    return table, keys, name is not None and form is not None and plain


def _characters(file: TokenizerJson, room: int) -> tuple[Table, Keys, bool]:
    """What SentencePiece makes, without its file: scores follow from the merges."""
    table = _table(file, room, spaces=True)
    pairs = read_merges(file)
    for i, kind in table.types.items():
        if kind == NORMAL:
            table.scores[i] = -float(len(pairs))
    ids: Mapping[str, int] = file.model.fields["vocab"]
    for rank in range(len(pairs) - 1, -1, -1):
        table.scores[ids["".join(pairs[rank])]] = -float(rank)
    prefix = space_prefix(file)
    keys: Keys = {
        PREFIX + "model": "llama",
        PREFIX + "pre": "default",
        PREFIX + "add_space_prefix": _puts_space(file),
    }
    exact = (
        prefix is not None
        and list(table.types.values()).count(BYTE) == 256
        and not file.model.flag("ignore_merges", default=False)
        and all(token.plain and not token.normalized for token in file.added)
        and _go_by_scores(pairs, ids)
    )
    return table, keys, exact


def _puts_space(file: TokenizerJson) -> bool:
    """Whether a text gets a space in front, of whatever kind."""
    prepends = any(step.get("type") == "Prepend" for step in flat(file.normalizer, inner="normalizers"))
    schemes = [
        step.get("prepend_scheme", "always") for step in flat(file.pre_tokenizer) if step.get("type") == "Metaspace"
    ]
    return prepends or any(scheme != "never" for scheme in schemes)


def _table(file: TokenizerJson, room: int, *, spaces: bool) -> Table:
    table = Table(file.path, room)
    unknown = file.model.fields.get("unk_token")
    falls_back = spaces and file.model.flag("byte_fallback", default=False)
    for text, i in by_text(file.model.fields.get("vocab"), file.path, "model.vocab").items():
        kind = BYTE if falls_back and byte_value(text) is not None else UNKNOWN if text == unknown else NORMAL
        table.put_new(i, text, kind, said_in="model.vocab")
    put_added(table, file, spaces=spaces)
    return table


def _go_by_scores(merges: list[Merge], vocab: Mapping[str, Any]) -> bool:
    """Whether merging by score, leftmost first, is merging by rank: then SentencePiece's way gives the same ids.

    Scores know only what a merge makes. So all ways to make a token must be there, side by side in the order of ranks;
    and where two of them overlap in a text ("a" + "aa" + "a"), the left one must come first.
    """
    made: dict[str, dict[Merge, int]] = {}
    last = ""
    for rank, (left, right) in enumerate(merges):
        token = left + right
        if token != last and token in made:
            return False
        last = token
        made.setdefault(token, {}).setdefault((left, right), rank)
    for token, ways in made.items():
        if ways.keys() != set(_ways(token, vocab)):
            return False
        lefts = {left: rank for (left, _), rank in ways.items()}
        if any(lefts.get(right, rank) < rank for (_, right), rank in ways.items()):
            return False
    return not any(token not in made and byte_value(token) is None and any(_ways(token, vocab)) for token in vocab)


def _ways(token: str, vocab: Mapping[str, Any]) -> Iterator[Merge]:
    for cut in range(1, len(token)):
        if token[:cut] in vocab and token[cut:] in vocab:
            yield token[:cut], token[cut:]
