"""WordPiece (BERT): from tokenizer.json, or from vocab.txt with one token a line.

BERT's files mark the tokens that go on with a word ("##ing"); GGUF marks those that begin one, with U+2581.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..checkpoint import Checkpoint, CheckpointError
from .added import put_added, put_all_added
from .table import CONTROL, NORMAL, PREFIX, Keys, Table, by_text
from .tokenizer_json import TokenizerJson

VOCAB = "vocab.txt"
_SPECIAL = ("unk", "sep", "pad", "cls", "mask")
_CONTINUES, _BEGINS = "##", "\u2581"


def word_pieces(file: TokenizerJson, room: int) -> tuple[Table, Keys, bool]:
    """(tokens, keys, whether the runtime tokenizes by them exactly as the file says)."""
    table = Table(file.path, room)
    for text, i in by_text(file.model.fields.get("vocab"), file.path, "model.vocab").items():
        table.put_new(i, text, NORMAL, said_in="model.vocab")
    put_added(table, file, spaces=False)
    normalizer = file.normalizer if isinstance(file.normalizer, dict) else {}
    model = file.model.fields
    exact = (
        normalizer.get("type") == "BertNormalizer"
        and normalizer.get("clean_text") is True
        and normalizer.get("handle_chinese_chars") is True
        and file.pre_tokenizer == {"type": "BertPreTokenizer"}
        and model.get("continuing_subword_prefix", _CONTINUES) == _CONTINUES
        and model.get("max_input_chars_per_word", 100) == 100
        and all(token.plain and not token.normalized for token in file.added)
    )
    return _marked(table), _keys(normalizer.get("lowercase", False), normalizer.get("strip_accents")), exact


def vocabulary_lines(
    checkpoint: Checkpoint, config: Mapping[str, Any], room: int
) -> tuple[Table, Keys, bool, dict[str, int]]:
    """The tokens of vocab.txt and those added to them, and ids of roles; tokenizer_config.json may name other special
    tokens than BERT's.
    """
    text = checkpoint.text(VOCAB) or ""
    path = checkpoint.path / VOCAB
    names = [config.get(f"{role}_token", f"[{role.upper()}]") for role in _SPECIAL]
    contents = [name.get("content") if isinstance(name, dict) else name for name in names]
    special = {content: role for content, role in zip(contents, _SPECIAL, strict=True) if isinstance(content, str)}
    table = Table(path, room)
    for i, line in enumerate(text.removesuffix("\n").split("\n")):
        table.put(i, line.removesuffix("\r"), NORMAL, said_in=f"line {i + 1}")
    put_all_added(table, checkpoint, None, config, spaces=False, folds=config.get("do_lower_case", True) is True)
    roles = {special[token]: i for i, token in table.texts.items() if token in special}
    if not roles:
        raise CheckpointError("none of its lines is a special token", path=path, allowed=", ".join(map(str, names)))
    table.types |= dict.fromkeys(roles.values(), CONTROL)
    roles |= {role: roles[own] for role, own in (("bos", "cls"), ("eos", "sep")) if own in roles}
    return _marked(table), _keys(config.get("do_lower_case", True), config.get("strip_accents")), True, roles


def _marked(table: Table) -> Table:
    """In GGUF's spelling. Special and user-defined tokens stay as they are found in texts."""
    for i, text in table.texts.items():
        if table.types[i] == NORMAL:
            table.texts[i] = text.removeprefix(_CONTINUES) if text.startswith(_CONTINUES) else _BEGINS + text
    return table


def _keys(lowercase: object, strip_accents: object) -> Keys:
    keys: Keys = {PREFIX + "model": "bert", PREFIX + "pre": "default"}
    keys[PREFIX + "normalizer.lowercase"] = lowercase is True
    if isinstance(strip_accents, bool):
        keys[PREFIX + "normalizer.strip_accents"] = strip_accents
    return keys
