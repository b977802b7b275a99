"""Every pre-tokenizer name and every kind, against ids that other programs gave."""

from __future__ import annotations

import pytest
from halfbyte.runtime.tokenize import tokenizer_from_metadata
from halfbyte.runtime.tokenize.pretokenizers import PATTERNS, PRE_TOKENIZERS

from .vocabularies import KEY, synthetic, synthetic_bpe

_ROWS = synthetic()["byte_level"]["rows"]
_IDS_BY_NAME = {name: row["ids"] for row in _ROWS.values() for name in row["names"]}


def test_all_names_are_covered() -> None:
    assert set(_IDS_BY_NAME) == {name for name, pre in PRE_TOKENIZERS.items() if pre.alphabet == "bytes"}
    assert {pre.rule for pre in PRE_TOKENIZERS.values()} == set(PATTERNS)


def test_texts_tell_the_rules_apart() -> None:
    ids = [str(row["ids"]) for row in _ROWS.values()]
    same = [name for name, row in _ROWS.items() if ids.count(str(row["ids"])) > 1]
    assert not same, "the texts of the fixture cannot show a mix-up of these rules"


@pytest.mark.parametrize("name", sorted(_IDS_BY_NAME))
def test_pre_tokenizer(name: str) -> None:
    tokenizer = synthetic_bpe(name)
    for text, ids in zip(synthetic()["texts"], _IDS_BY_NAME[name], strict=True):
        assert tokenizer.encode(text, add_special=False) == ids, ascii(text)
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", sorted(synthetic()["others"]))
def test_other_kind(name: str) -> None:
    fixture = synthetic()["others"][name]
    tokenizer = tokenizer_from_metadata(fixture["metadata"])
    for text, ids in zip(synthetic()["texts"], fixture["ids"], strict=True):
        assert tokenizer.encode(text, add_special=False) == ids, ascii(text)


@pytest.mark.parametrize("name", ["bpe", "gemma4", "sarvam-moe", "rwkv", "plamo2"])
def test_lossless_kinds_round_trip(name: str) -> None:
    fixture = synthetic()["others"][name]
    tokenizer = tokenizer_from_metadata(fixture["metadata"])
    for text, ids in zip(synthetic()["texts"], fixture["ids"], strict=True):
        assert tokenizer.decode(ids) == text


def test_unigram_normalizes_with_its_character_map() -> None:
    tokenizer = tokenizer_from_metadata(synthetic()["others"]["unigram"]["metadata"])
    assert tokenizer.encode("stra\u00dfe\u3000e\u0301") == tokenizer.encode("  strasse \u00e9 ")


def test_special_tokens_as_llama_cpp() -> None:
    fixture = synthetic()["special"]
    tokenizer = synthetic_bpe("qwen2")
    framed = tokenizer_from_metadata(
        synthetic()["byte_level"]["metadata"] | {KEY + "pre": "qwen2", KEY + "add_bos_token": True}
    )
    for i, text in enumerate(fixture["texts"]):
        assert tokenizer.encode(text, parse_special=True) == fixture["parsed"][i], text
        assert tokenizer.encode(text) == fixture["plain"][i], text
        assert framed.encode(text) == fixture["framed"][i], text
