"""Encoding and decoding text: properties, special tokens, streams."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.errors import InvalidRequest
from halfbyte.runtime.tokenize import Tokenizer, tokenizer_from_metadata
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import load_fixture
from .vocabularies import KEY, bpe_metadata, spm_metadata, synthetic_bpe

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(_TEXT, st.sampled_from(["gpt-2", "llama3", "tekken", "deepseek-llm", "chameleon", "superbpe", "default"]))
@settings(max_examples=150, deadline=None)
def test_byte_level_round_trip(text: str, pre: str) -> None:
    tokenizer = synthetic_bpe(pre)
    assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text


@given(_TEXT)
@settings(max_examples=100, deadline=None)
def test_real_vocabularies_round_trip(text: str) -> None:
    for name, known in (("gpt-2", text), ("llama-spm", text.replace("\u2581", "_"))):  # U+2581 is SentencePiece's space
        tokenizer = load_fixture(name)
        assert tokenizer.decode(tokenizer.encode(known)) == known


@given(st.lists(st.integers(0, 30_000), max_size=30), st.booleans())
@settings(max_examples=100, deadline=None)
def test_stream_equals_decode(ids: list[int], skip_special: bool) -> None:
    for name in ("gpt-2", "llama-spm"):
        tokenizer = load_fixture(name)
        stream = tokenizer.stream(skip_special=skip_special, start=True)
        streamed = "".join([stream.feed(i) for i in ids]) + stream.flush()
        assert streamed == tokenizer.decode(ids, skip_special=skip_special)


def test_stream_of_random_bytes_equals_decode() -> None:
    tokenizer, rng = synthetic_bpe("gpt-2"), random.Random(1)
    for _ in range(200):
        ids = [rng.randrange(256) for _ in range(rng.randint(0, 12))]
        stream = tokenizer.stream(start=True)
        assert "".join([stream.feed(i) for i in ids]) + stream.flush() == tokenizer.decode(ids)


def test_stream_holds_back_incomplete_characters() -> None:
    tokenizer = synthetic_bpe("gpt-2")
    ids = tokenizer.encode("\u20ac", add_special=False)
    stream = tokenizer.stream()
    assert [stream.feed(i) for i in ids] == [""] * (len(ids) - 1) + ["\u20ac"]
    assert stream.feed(ids[0]) == ""
    assert stream.flush() == "\ufffd"
    assert stream.feed(ids[0]) == ""


def test_generated_text_keeps_the_space_that_decode_removes(spm: Tokenizer) -> None:
    ids = spm.encode("world", add_special=False)
    assert spm.decode(ids) == "world"
    stream = spm.stream()
    assert "".join([stream.feed(i) for i in ids]) == " world"


def test_control_tokens_only_on_demand() -> None:
    tokenizer = tokenizer_from_metadata(bpe_metadata())
    text = "<|im_start|>th<tool>"
    assert tokenizer.encode(text, parse_special=True) == [257, 256, 259]
    plain = tokenizer.encode(text)
    assert 257 not in plain and plain[-1] == 259
    assert tokenizer.decode(plain) == text
    assert tokenizer.decode([257, 256, 259]) == "th<tool>"
    assert tokenizer.decode([257, 256, 259], skip_special=False) == text
    assert [tokenizer.is_special(i) for i in (256, 257, 259)] == [False, True, False]


def test_added_tokens_match_leftmost_then_longest() -> None:
    tokens = [*bpe_metadata()[KEY + "tokens"][:257], "ab", "bcd", "abx"]
    metadata = bpe_metadata(tokens=tokens, token_type=[1] * 257 + [4] * 3, bos_token_id=None, eos_token_id=None)
    tokenizer = tokenizer_from_metadata(metadata)
    letters = {char: tokenizer.encode(char)[0] for char in "cd"}
    assert tokenizer.encode("abcd") == [257, letters["c"], letters["d"]]
    assert tokenizer.encode("abxbcd") == [259, 258]


def test_bos_and_eos_where_the_model_wants_them(spm: Tokenizer) -> None:
    assert spm.encode("") == [1]
    assert spm.encode("", add_special=False) == []
    both = tokenizer_from_metadata(spm_metadata(add_eos_token=True))
    assert both.encode("ab") == [1, 264, 2]
    neither = tokenizer_from_metadata(spm_metadata(add_bos_token=False))
    assert neither.encode("ab") == [264]
    assert load_fixture("bert-bge").encode("hello") == [101, 7592, 102]
    assert tokenizer_from_metadata(bpe_metadata(pre="llama3")).encode("th") == [257, 256]
    assert tokenizer_from_metadata(bpe_metadata()).encode("th") == [256]


def test_space_prefix_after_special_tokens() -> None:
    tokenizer = tokenizer_from_metadata(spm_metadata())
    assert tokenizer.encode("ab</s>ab", parse_special=True) == [1, 264, 2, 264]
    assert tokenizer_from_metadata(spm_metadata(add_space_prefix=False)).encode("ab") == [1, 263]


def test_byte_fallback(spm: Tokenizer) -> None:
    ids = spm.encode("\U0001f9e0", add_special=False)
    assert [spm.token_bytes(i) for i in ids[1:]] == [b"\xf0", b"\x9f", b"\xa7", b"\xa0"]


def test_phi3_special_tokens_swallow_spaces() -> None:
    metadata = spm_metadata() | {"general.name": "Phi-3 mini"}
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.encode("a</s> \n a", parse_special=True) == [1, 262, 2, 262]
    assert tokenizer.encode("a<s> a", parse_special=True) == [1, 262, 1, 259, 262]  # <s> does not


def test_lone_surrogates_count_as_replacement_characters(real: Tokenizer) -> None:
    assert real.encode("a\ud800b") == real.encode("a\ufffdb")


def test_token_text_is_safe_to_print() -> None:
    tokens = [*bpe_metadata()[KEY + "tokens"][:259], "\x1b[31m\u202e\n"]
    tokenizer = tokenizer_from_metadata(bpe_metadata(tokens=tokens))
    for i in range(tokenizer.vocab_size):
        assert tokenizer.token_text(i).isprintable()
    assert tokenizer.token_text(259) == "\\x1b[31m\\u202e\\n"
    assert tokenizer.token_text(tokenizer.encode("\x80")[0]) == "\\xc2"


def test_wordpiece_decodes_readably() -> None:
    tokenizer = load_fixture("bert-bge")
    assert tokenizer.decode(tokenizer.encode("Hello, world! It's unbelievable.")) == "hello, world! it's unbelievable."


def test_long_words_are_unknown_to_bert() -> None:
    assert load_fixture("bert-bge").encode("x" * 101, add_special=False) == [100]


@pytest.mark.parametrize("bad", [-1, 50_257, 10**12])
def test_ids_outside_of_the_vocabulary(gpt2: Tokenizer, bad: int) -> None:
    for call in (gpt2.token_bytes, gpt2.token_text, gpt2.is_special, gpt2.stream().feed, lambda i: gpt2.decode([i])):
        with pytest.raises(InvalidRequest, match=r"outside the vocabulary of 50,257"):
            call(bad)


@pytest.mark.parametrize("ids", ["abc", b"abc", [1.5], ["1"], [None], np.array([[1, 2]]), np.array([1.0])])
def test_ids_are_whole_numbers(gpt2: Tokenizer, ids: Any) -> None:
    for skip_special in (True, False):
        with pytest.raises(TypeError, match=r"token ids? is (needed|a whole number), not"):
            gpt2.decode(ids, skip_special=skip_special)
    for call in (gpt2.token_bytes, gpt2.token_text, gpt2.is_special, gpt2.stream().feed):
        with pytest.raises(TypeError, match="a token id is a whole number, not"):
            call(ids)
    assert gpt2.decode(np.array([31373])) == gpt2.decode(iter([31373])) == gpt2.token_text(np.int64(31373)) == "hello"


@pytest.mark.parametrize("text", [b"abc", None, 5, ["abc"]])
def test_a_text_is_a_str(gpt2: Tokenizer, text: Any) -> None:
    with pytest.raises(TypeError, match="a str is needed, not"):
        gpt2.encode(text)


def test_special_ids_and_templates() -> None:
    metadata = bpe_metadata() | {
        "tokenizer.chat_template": "plain",
        "tokenizer.chat_template.tool_use": "tools",
    }
    tokenizer = tokenizer_from_metadata(metadata)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eot_id) == (257, 258, 258)
    assert tokenizer.unk_id is None and tokenizer.pad_id is None
    assert tokenizer.eog_ids == {258}
    assert tokenizer.chat_template() == "plain"
    assert tokenizer.chat_template("tool_use") == "tools"
    assert tokenizer.chat_template("rag") is None
    assert tokenizer.token_id("<tool>") == 259 and tokenizer.token_id("nowhere") is None


def test_end_of_generation_texts() -> None:
    base = bpe_metadata()[KEY + "tokens"][:257]

    def eog(*texts: str, types: int = 3) -> set[str]:
        metadata = bpe_metadata(
            tokens=[*base, *texts],
            token_type=[1] * 257 + [types] * len(texts),
            bos_token_id=None,
            eos_token_id=257,
        )
        tokenizer = tokenizer_from_metadata(metadata)
        return {texts[i - 257] for i in tokenizer.eog_ids}

    assert eog("<eos>", "<|eot_id|>", "<|eom_id|>", "<x>") == {"<eos>", "<|eot_id|>", "<|eom_id|>"}
    assert eog("<|return|>", "<|call|>", "<|end|>") == {"<|return|>", "<|call|>"}  # Harmony
    assert eog("<eos>", "</s>") == {"<eos>", "</s>"}
    assert eog("<eos>", "</s>", types=4) == {"<eos>"}  # an HTML tag in Gemma's vocabulary
    assert eog("<eos>", "<|fim_pad|>", "<|fim_prefix|>", "<|file_sep|>") == {"<eos>", "<|fim_pad|>", "<|file_sep|>"}


def test_known_texts_become_control_tokens() -> None:
    tokenizer = tokenizer_from_metadata(bpe_metadata(token_type=[1] * 260))
    assert tokenizer.is_special(258), "<|im_end|> was stored as plain text"
    assert 258 not in tokenizer.encode("<|im_end|>")
