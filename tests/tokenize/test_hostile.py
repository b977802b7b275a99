"""Broken and hostile metadata: a typed error that names the key, never a crash."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.errors import HalfbyteError, TokenizerError, UnsupportedError
from halfbyte.runtime.tokenize import tokenizer_from_metadata
from halfbyte.runtime.tokenize.vocabulary import read_vocabulary

from .vocabularies import KEY, bpe_metadata, spm_metadata, synthetic

_TOKENS = bpe_metadata()[KEY + "tokens"]
_SPM = spm_metadata()[KEY + "tokens"]

_BROKEN = [
    ({"tokens": None}, "tokens' is missing"),
    ({"tokens": []}, "is empty"),
    ({"tokens": np.zeros(0, np.float32)}, "is empty"),
    ({"tokens": "text"}, "array of strings"),
    ({"tokens": [1, 2, 3]}, "array of strings"),
    ({"tokens": [*_TOKENS[:-1], _TOKENS[0]]}, "twice"),
    ({"tokens": [*_TOKENS[:-1], "a\udcff"]}, "not valid UTF-8"),
    ({"token_type": [1] * 259}, "259 entries for 260"),
    ({"token_type": [1] * 261}, "261 entries for 260"),
    ({"token_type": [1.5] * 260}, "array of integers"),
    ({"token_type": "text"}, "array of integers"),
    ({"scores": [0.0] * 3}, "3 entries for 260"),
    ({"scores": [float("nan")] * 260}, "not a finite number"),
    ({"scores": np.zeros((2, 130))}, "array of numbers"),
    ({"merges": None}, "merges' is missing"),
    ({"merges": ["t h", "th"]}, "no pair"),
    ({"merges": [" t"]}, "no pair"),
    ({"merges": ["t "]}, "no pair"),
    ({"merges": [""]}, "no pair"),
    ({"merges": ["t q"]}, "does not fit the vocabulary"),
    ({"merges": ["tq h"]}, "does not fit the vocabulary"),
    ({"merges": [3]}, "array of strings"),
    ({"bos_token_id": 260}, "bos_token_id' is 260"),
    ({"eos_token_id": 2**63}, "outside the vocabulary"),
    ({"eos_token_id": -2}, "outside the vocabulary"),
    ({"eos_token_id": "2"}, "an integer"),
    ({"eos_token_id": True}, "an integer"),
    ({"add_bos_token": 1}, "a bool"),
    ({"pre": 3}, "a string"),
    ({"model": None}, "no tokenizer"),
    ({"model": 1}, "a string"),
]


@pytest.mark.parametrize(("changes", "message"), _BROKEN, ids=[str(i) for i in range(len(_BROKEN))])
def test_broken_bpe(changes: dict[str, Any], message: str) -> None:
    tokenizer_from_metadata(bpe_metadata())
    with pytest.raises(TokenizerError, match=message):
        tokenizer_from_metadata(bpe_metadata(**changes))


@pytest.mark.parametrize("kind", ["none", "no_vocab", "test", "rwkv7", ""])
def test_unknown_kind(kind: str) -> None:
    with pytest.raises(UnsupportedError, match=f"kind {kind!r}"):
        tokenizer_from_metadata(bpe_metadata(model=kind))


def test_unknown_pre_tokenizer_names_the_nearest() -> None:
    with pytest.raises(UnsupportedError, match=r"'qwen-2'.*nearest known: qwen2"):
        tokenizer_from_metadata(bpe_metadata(pre="qwen-2"))


def test_ids_of_minus_one_mean_none() -> None:
    tokenizer = tokenizer_from_metadata(spm_metadata(eos_token_id=0xFFFF_FFFF, bos_token_id=-1))
    assert tokenizer.eos_id is None and tokenizer.bos_id is None
    assert tokenizer.encode("ab") == [264]


def test_empty_tokens_match_nothing() -> None:
    tokens = [*_TOKENS[:-1], ""]
    tokenizer = tokenizer_from_metadata(bpe_metadata(tokens=[*tokens, ""], token_type=[1] * 257 + [3, 3, 4, 3]))
    assert tokenizer.decode([259, 260], skip_special=False) == ""
    assert tokenizer.encode("th", parse_special=True) == [256]
    spm = tokenizer_from_metadata(spm_metadata(tokens=[*_SPM[:-1], ""]))
    assert spm.encode("ab") == [1, 259, 263]


@pytest.mark.parametrize("token", ["a\0b", "\0", "x" * 200, "x" * 70_000, "▁" * 50])
def test_odd_pieces_in_sentencepiece_vocabularies(token: str) -> None:
    for kind in ("llama", "t5"):
        tokenizer = tokenizer_from_metadata(spm_metadata(model=kind, tokens=[*_SPM[:-1], token]))
        assert tokenizer.token_bytes(264) == token.replace("▁", " ").encode()
        assert tokenizer.decode(tokenizer.encode("ab\0x")) in ("ab\0x", "ab")


def test_vocabulary_without_byte_and_unknown_tokens() -> None:
    tokenizer = tokenizer_from_metadata(
        spm_metadata(tokens=["a", "b", "ab"], scores=[-1.0, -2.0, -0.5], token_type=[1, 1, 1], unknown_token_id=-1)
    )
    ids = tokenizer.encode("ab€ba", add_special=False)
    assert all(0 <= i < 3 for i in ids)
    assert tokenizer.decode(ids) == "abba"


def test_partial_set_of_byte_tokens() -> None:
    tokens = ["<unk>", "<s>", "</s>", "<0x41>", "<0x41", "a", "▁", "▁a"]
    tokenizer = tokenizer_from_metadata(
        spm_metadata(tokens=tokens, scores=[0.0] * 8, token_type=[2, 3, 3, 6, 6, 1, 1, 1])
    )
    assert tokenizer.encode("a€") == [1, 7, 0]


def _charsmap() -> np.ndarray:
    return np.array(synthetic()["others"]["unigram"]["metadata"][KEY + "precompiled_charsmap"], np.uint8)


def test_character_maps_are_checked_before_use() -> None:
    base = synthetic()["others"]["unigram"]["metadata"]
    good = _charsmap()
    tokenizer_from_metadata(base)
    cut = [good[:0], good[:3], good[:100], good[:-1], np.concatenate([good, good[5:6] | 1])]
    huge = good.copy()
    huge[:4] = 255
    far = good.copy()
    far[4:8] = [0, 0xFC, 0xFF, 0x7F]  # the root's children beyond the end
    value = good.copy()
    units = value[4 : 4 + int.from_bytes(good[:4].tobytes(), "little")].view("<u4")
    units[units >= 1 << 31] |= 0x7FFF_FFFF  # replacements beyond the end
    for broken in [*cut[1:], huge, far, value]:
        with pytest.raises(TokenizerError, match="precompiled_charsmap"):
            tokenizer_from_metadata(base | {KEY + "precompiled_charsmap": broken})
    assert tokenizer_from_metadata(base | {KEY + "precompiled_charsmap": cut[0]}).encode("a")


def test_random_character_maps_never_crash() -> None:
    base, good, rng = synthetic()["others"]["unigram"]["metadata"], _charsmap(), random.Random(5)
    loaded = 0
    for _ in range(60):
        blob = good.copy()
        for _ in range(rng.randint(1, 20)):
            blob[rng.randrange(len(blob))] = rng.randrange(256)
        try:
            tokenizer = tokenizer_from_metadata(base | {KEY + "precompiled_charsmap": blob})
        except TokenizerError:
            continue
        loaded += 1
        tokenizer.encode("Ａß\u3000e\u0301 abc \U0001f44d")
    assert loaded


def test_random_metadata_gives_typed_errors() -> None:
    rng = random.Random(9)
    sources = [bpe_metadata(), spm_metadata(), *(fixture["metadata"] for fixture in synthetic()["others"].values())]
    junk = [None, "", "x", -1, 0, 2**32 - 1, 1.5, True, [], ["a"], ["", ""], [0] * 5, [float("inf")], np.zeros(4)]
    for _ in range(400):
        metadata = dict(rng.choice(sources))
        for _ in range(rng.randint(1, 3)):
            key = rng.choice(sorted(metadata))
            value = metadata[key]
            if isinstance(value, list) and value and rng.random() < 0.6:
                value = list(value)
                value[rng.randrange(len(value))] = rng.choice([*value[:5], "", "\0", 0, "\udcff", "a b"])
                metadata[key] = value
            else:
                metadata[key] = rng.choice(junk)
        try:
            tokenizer = tokenizer_from_metadata({key: value for key, value in metadata.items() if value is not None})
            ids = tokenizer.encode("Hello wörld\n 123 <|end|>", parse_special=True)
            tokenizer.decode(ids)
        except HalfbyteError:
            continue
        assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_a_vocabulary_that_is_numbered_in_parts() -> None:
    more = [f"token {i}" for i in range(40_000)]
    count = len(_SPM) + len(more)
    changes: dict[str, Any] = {"token_type": [*spm_metadata()[KEY + "token_type"], *[1] * len(more)]}
    metadata = spm_metadata(tokens=[*_SPM, *more], scores=[0.0] * count, **changes)
    ids = read_vocabulary(metadata).ids
    assert len(ids) == count
    assert all(ids[token] == len(_SPM) + i for i, token in enumerate(more))
    more[-1] = more[0]
    with pytest.raises(TokenizerError, match=f"'token 0' twice: ids {len(_SPM)} and {count - 1}"):
        read_vocabulary(spm_metadata(tokens=[*_SPM, *more], scores=[0.0] * count, **changes))
