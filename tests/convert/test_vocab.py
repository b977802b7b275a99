"""Tokenizers of folders: the ids are those of Hugging Face's `tokenizers`, whatever the structure."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from halfbyte.converters.vocab.structure import pre_name
from halfbyte.formats.errors import Cancelled, TokenizerError
from halfbyte.runtime.tokenize import tokenizer_from_metadata
from halfbyte.runtime.tokenize.vocabulary import HUGGINGFACE_KEY, NORMAL_FORM_KEY

from . import tokenizer_equality as equality
from . import vocabularies
from .vocabularies import MAKERS, converted, made, metadata_of, rows_for, write_made, write_tokenizer

PRE = "tokenizer.ggml.pre"
# Name -> pre-tokenizer, and whether the file has to go along.
FOUND: dict[str, tuple[str | None, bool]] = {
    "gpt2": ("gpt-2", False), "llama3": ("llama-bpe", False), "cl100k": ("dbrx", False), "qwen2": ("qwen2", False),
    "smollm": ("smollm", False), "unknown": (None, True), "fallback": ("default", True), "first": ("default", True),
    "scored": ("default", False),
    "unigram": ("default", True), "wordpiece": ("default", False),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_ids_are_those_of_tokenizers(name: str, tmp_path: Path) -> None:
    folder = write_made(tmp_path, name)
    metadata = metadata_of(folder, rows_for(name))
    assert (metadata.get(PRE), HUGGINGFACE_KEY in metadata) == FOUND[name]
    assert metadata.get(NORMAL_FORM_KEY) == ("NFC" if name == "qwen2" else None)
    assert not equality.check_json(folder, 80, random.Random(1), step=61)


@pytest.mark.parametrize("name", ["gpt2", "wordpiece", "unknown"])
def test_an_engine_is_made_after_a_check(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    """It holds Python's lock, so that a load that was cancelled before has to stop here."""
    metadata = metadata_of(write_made(tmp_path, name), rows_for(name))

    def stop() -> None:
        raise Cancelled("stop")

    for model in ("BPE", "WordPiece"):
        monkeypatch.setattr(f"tokenizers.models.{model}", None)
    monkeypatch.setattr("tokenizers.Tokenizer", None)
    with pytest.raises(Cancelled):
        tokenizer_from_metadata(metadata, check=stop)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_ids_are_those_of_sentencepiece(kind: str, tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, {"tokenizer.model": vocabularies.pieces(kind)})
    assert metadata_of(folder, 700)["tokenizer.ggml.model"] == {"bpe": "llama", "unigram": "t5"}[kind]
    assert not equality.check_pieces(folder, 80, random.Random(1), step=61)


@pytest.mark.parametrize("name", ["qwen2", "fallback", "first", "scored"])
def test_texts_come_back(name: str, tmp_path: Path) -> None:
    tokenizer = converted(write_made(tmp_path, name), rows_for(name))
    for text in ("Hello, world", "two  spaces ", "\U0001f44d Gr\u00fc\u00dfe\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.adds_space == (name in ("fallback", "first"))


def test_the_comparison_notices_a_wrong_rule(tmp_path: Path) -> None:
    metadata = dict(metadata_of(write_made(tmp_path, "qwen2"), 2000))
    engine = equality.reference(made("qwen2"))
    for key, value in ((PRE, "llama-bpe"), (PRE, "gpt-2"), (NORMAL_FORM_KEY, None)):
        wrong = tokenizer_from_metadata(metadata | {key: value})
        given = equality.texts(random.Random(1), ["<tool>"], 60, step=61)
        assert equality.differences(
            wrong, lambda text, framed: engine.encode(text, add_special_tokens=framed).ids, given
        )


def _level(**changes: Any) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False} | changes


def _cut(pattern: str, **changes: Any) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False} | changes


def _steps(*steps: Any) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def _cuts(pattern: str) -> dict[str, Any]:
    return _steps(_cut(pattern), _level())


STRUCTURES: list[tuple[Any, bool, str | None]] = [
    (_level(use_regex=True), False, "gpt-2"),
    (_level(use_regex=True, add_prefix_space=True), False, None),
    (_level(use_regex=True), True, None),
    (_steps(_steps(_cut(vocabularies.QWEN2)), _level()), False, "qwen2"),
    (_steps(_cut(vocabularies.QWEN2, behavior="Removed"), _level()), False, None),
    (_steps(_cut(vocabularies.QWEN2, behavior="Removed", invert=True), _level()), False, "qwen2"),
    (_steps(_cut(vocabularies.QWEN2 + " "), _level()), False, None),
    (_steps(_cut(vocabularies.LLAMA3), {"type": "Digits", "individual_digits": True}, _level()), True, None),
    (_steps({"type": "Punctuation", "behavior": "Contiguous"}, _level(use_regex=True), _cut("[0-9][0-9][0-9]")),
     False, "falcon"),
    (_cuts("'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]"
           "|\\s+(?!\\S)|\\s+"), False, "qwen2"),
    (_cuts(" ?[^(\\s|[.,!?…。，、।۔،])]+"), False, "bloom"),
    ({"type": "Sequence", "pretokenizers": "none"}, False, None),
    ("ByteLevel", False, None),
]  # fmt: skip


@pytest.mark.parametrize(("structure", "ignore_merges", "name"), STRUCTURES)
def test_names_by_structure(structure: Any, ignore_merges: bool, name: str | None) -> None:
    assert pre_name(structure, ignore_merges=ignore_merges) == name


def test_texts_cannot_forge_special_tokens(tmp_path: Path) -> None:
    """Not even where the embedded file would make one of a word that looks like it."""
    content = json.loads(made("wordpiece"))
    content["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    content["normalizer"] = None
    named = vocabularies.NAMED["wordpiece"]
    folder = write_tokenizer(tmp_path, {"tokenizer.json": content, "tokenizer_config.json": named})
    tokenizer = converted(folder, 1300)
    special = {i for i in range(tokenizer.vocab_size) if tokenizer.is_special(i)} - {tokenizer.unk_id}
    assert special & set(tokenizer.encode("the [SEP] the", add_special=False, parse_special=True))
    assert not special & set(tokenizer.encode("the [SEP] the", add_special=False))
    plain = converted(write_made(tmp_path / "unknown", "unknown"), 2000)
    assert plain.bos_id not in plain.encode("<|begin|> <|end|>", add_special=False)
    assert plain.encode("<|begin|>", add_special=False, parse_special=True) == [plain.bos_id]
    assert plain.decode(plain.encode("grüße <tool> there")) == "grüße <tool> there"


def _hostile(**changes: Any) -> str:
    return json.dumps(json.loads(made("unknown")) | changes)


def _grows(content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": "a"}, "content": content}


HOSTILE: dict[str, Any] = {
    "no text": 5,
    "no JSON": "{",
    "twice": '{"model": 1, "model": 2}',
    "no object": "[]",
    "no tokenizer": "{}",
    "tokens": _hostile(added_tokens=5),
    "token": _hostile(added_tokens=["x"]),
    "ids": _hostile(added_tokens=[{"id": 1 << 70, "content": "x"}]),
    "pattern": _hostile(pre_tokenizer=_cut("(")),
    "growth": _hostile(normalizer=_grows("x" * 300)),
    "growth by and by": _hostile(normalizer={"type": "Sequence", "normalizers": [_grows("x" * 9)] * 9}),
    "map": _hostile(normalizer={"type": "Precompiled", "precompiled_charsmap": "?"}),
    "deep": '{"normalizer": ' + '{"type": "Sequence", "normalizers": [' * 500 + "]}" * 500 + "}",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_embedded_file_is_hostile(what: str, tmp_path: Path) -> None:
    metadata = dict(metadata_of(write_made(tmp_path, "unknown"), 2000))
    with pytest.raises(TokenizerError, match="huggingface"):
        tokenizer_from_metadata(metadata | {HUGGINGFACE_KEY: HOSTILE[what]})


@pytest.mark.parametrize("value", ["nfc", 5, ["NFC"]])
def test_a_normal_form_is_one_of_four(value: Any, tmp_path: Path) -> None:
    metadata = dict(metadata_of(write_made(tmp_path, "gpt2"), 1600))
    with pytest.raises(TokenizerError, match="NFKD"):
        tokenizer_from_metadata(metadata | {NORMAL_FORM_KEY: value})


def test_an_embedded_file_has_no_more_tokens_than_the_vocabulary(tmp_path: Path, monkeypatch: Any) -> None:
    metadata = dict(metadata_of(write_made(tmp_path, "gpt2"), 1600))
    extra = json.loads(made("gpt2"))
    extra["model"]["vocab"]["far away"] = 1600
    with pytest.raises(TokenizerError, match="1,600"):
        tokenizer_from_metadata(metadata | {HUGGINGFACE_KEY: json.dumps(extra)})
    monkeypatch.setattr("halfbyte.runtime.tokenize.huggingface.MAX_CHARS", 1000)
    with pytest.raises(TokenizerError, match="1,000"):
        tokenizer_from_metadata(metadata | {HUGGINGFACE_KEY: made("gpt2")})


def test_truncation_and_padding_of_the_file_change_nothing(tmp_path: Path) -> None:
    tokenizer = converted(write_made(tmp_path, "unknown"), 2000)
    assert len(tokenizer.encode("word " * 40)) > 40
    assert len(tokenizer.encode("a", add_special=False)) == 1
