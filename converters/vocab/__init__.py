"""The tokenizer of a Hugging Face folder as metadata of a GGUF file, recognized by its structure.

    tokenizer_json.py   the file that describes most of them; structure.py compares how it cuts texts
    added.py            tokens that are added to a vocabulary
    bpe.py, sentence.py (with protobuf.py), wordpiece.py, tekken.py      one kind each
    table.py            tokens by id; special.py  roles of tokens; templates.py  chat templates

Where the runtime has no tokenizer that equals the file's, the file itself goes along, and the runtime uses that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...formats.errors import UnsupportedError
from ...runtime.tokenize.huggingface import MAX_CHARS
from ...runtime.tokenize.vocabulary import HUGGINGFACE_KEY
from ..checkpoint import Checkpoint, CheckpointError
from . import bpe, sentence, tekken, wordpiece
from .special import Special
from .structure import is_byte_level
from .table import PREFIX, Keys, Table
from .templates import template_keys, unusable_templates
from .tokenizer_json import TokenizerJson

__all__ = ["unusable_templates", "vocabulary"]

_CONFIG, _MAP = "tokenizer_config.json", "special_tokens_map.json"


def vocabulary(checkpoint: Checkpoint, n_vocab: int) -> Keys:
    """Metadata `tokenizer.*` for a model with so many rows of embeddings; values, or pairs of value and type.

    Raises CheckpointError (missing, broken, or more tokens than rows) and UnsupportedError (a kind that is not known).
    """
    config = _object(checkpoint, _CONFIG)
    file = TokenizerJson.of(checkpoint)
    table, keys, exact, roles = _tokens(checkpoint, file, config, n_vocab)
    if file is not None and not exact:
        if len(file.text) > MAX_CHARS:
            raise CheckpointError("too large to be embedded", path=file.path, got=len(file.text))
        keys[HUGGINGFACE_KEY] = file.within(n_vocab)
    kind = keys[PREFIX + "model"]
    named = _object(checkpoint, _MAP) | config
    special = Special(table.ids(), named, roles, _numbers(checkpoint, n_vocab), n_vocab, checkpoint.path)
    special.frame(file, named)
    return keys | table.keys(scores=kind in ("llama", "t5")) | special.keys(kind) | template_keys(checkpoint, config)


def _tokens(
    checkpoint: Checkpoint, file: TokenizerJson | None, config: Mapping[str, Any], room: int
) -> tuple[Table, Keys, bool, dict[str, int]]:
    """(tokens, keys, whether they are all that is needed, ids of roles) by what the folder has."""
    pieces = next((name for name in sentence.NAMES if checkpoint.find(name)), None)
    by_bytes = file is not None and file.kind == "BPE" and is_byte_level(file.pre_tokenizer)
    if file is not None and (by_bytes or pieces is None or file.kind == "WordPiece"):
        readers = {"BPE": bpe.byte_pairs, "Unigram": sentence.unigram, "WordPiece": wordpiece.word_pieces}
        if file.kind not in readers:
            raise UnsupportedError(f"{file.path}: tokenizers of the kind {file.kind!r} cannot be converted")
        return *readers[file.kind](file, room), {}
    if pieces is not None:
        return sentence.sentence_pieces(checkpoint, pieces, file, config, room)
    if checkpoint.find(tekken.NAME):
        return tekken.tekken(checkpoint, room)
    if checkpoint.find(wordpiece.VOCAB):
        return wordpiece.vocabulary_lines(checkpoint, config, room)
    raise CheckpointError(
        "there is no tokenizer", path=checkpoint.path,
        allowed="tokenizer.json, tokenizer.model, tekken.json, vocab.txt",
        hint="Save it again with a recent transformers, which writes tokenizer.json",
    )  # fmt: skip


def _numbers(checkpoint: Checkpoint, room: int) -> dict[str, Any]:
    """Ids that config.json gives. What is none of the model's tokens is for Special to judge."""
    found: dict[str, Any] = {}
    text = checkpoint.config.get("text_config")
    for fields in (text if isinstance(text, dict) else {}, checkpoint.config):
        for role in ("bos", "eos", "unk", "sep", "pad", "mask"):
            if (i := _first_id(fields.get(f"{role}_token_id"), room)) is not None:
                found[role] = i
    return found


def _first_id(given: Any, room: int) -> Any:
    """Of several the first that the model has, or else the first of all. None where -1, or an empty list, says none."""
    ids = [i for i in (given if isinstance(given, list) else [given]) if i is not None and i != -1]
    return next((i for i in ids if type(i) is int and 0 <= i < room), ids[0] if ids else None)


def _object(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    return checkpoint.require_json(name) if checkpoint.find(name) else {}
