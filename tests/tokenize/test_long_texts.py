"""AT-12: long runs take time in proportion to their length, and the fast path for them gives the engine's ids."""

from __future__ import annotations

import random
import time

import pytest
from halfbyte.runtime.tokenize import Tokenizer, bytelevel, tokenizer_from_metadata
from halfbyte.runtime.tokenize.bpe import BpeEncoder, parse_merges
from halfbyte.runtime.tokenize.engine import run
from halfbyte.runtime.tokenize.longwords import LONG, RunMerger
from halfbyte.runtime.tokenize.vocabulary import read_vocabulary

from .conftest import load_fixture
from .vocabularies import bpe_metadata, synthetic, synthetic_bpe

_RUNS = ["x", "X", ".", " ", "\n", "\u4e2d", "\u0301", "7"]
_RULES = ["llama3", "tekken", "deepseek-llm", "deepseek-v3", "tiny_aya", "superbpe", "jais-2", "exaone-moe", "falcon"]


def _seconds(tokenizer: Tokenizer, text: str) -> float:
    """CPU time, so that other processes do not count."""
    start = time.process_time()
    tokenizer.encode(text)
    return time.process_time() - start


def _all() -> list[tuple[str, Tokenizer]]:
    real = [(name, load_fixture(name)) for name in ("gpt-2", "llama-spm", "bert-bge")]
    rules = [(rule, synthetic_bpe(rule)) for rule in _RULES]
    others = synthetic()["others"]
    return real + rules + [(name, tokenizer_from_metadata(others[name]["metadata"])) for name in ("unigram", "gemma4")]


def _is_linear(tokenizer: Tokenizer, char: str) -> bool:
    """One measurement. Several may be needed: a busy neighbour on the same core also costs CPU time."""
    short, long = _seconds(tokenizer, char * 50_000), _seconds(tokenizer, char * 200_000)
    # Linear time is a ratio of 4 (9 where only the short text fits a cache), quadratic of 16. Below 20 ms the clock
    # decides, not the algorithm.
    return long < max(12.0 * short, 0.02) and long < 0.4  # 2 s for a million characters


@pytest.mark.parametrize("char", _RUNS, ids=ascii)
def test_runs_take_linear_time(char: str) -> None:
    for name, tokenizer in _all():
        tokenizer.encode(char * 1000)
        assert any(_is_linear(tokenizer, char) for _ in range(5)), name


@pytest.mark.parametrize("char", _RUNS, ids=ascii)
def test_a_million_characters(char: str) -> None:
    for name in ("gpt-2", "llama-spm", "bert-bge"):
        assert _seconds(load_fixture(name), char * 1_000_000) < 2.0, name


_MIXED = [" " * 50_000 + "x", "ab " * 50_000, "1a" * 60_000, "7" * 90_000 + "abc", "-=" * 90_000]


@pytest.mark.parametrize("text", _MIXED, ids=[text[-5:] for text in _MIXED])
def test_mixed_long_texts_take_linear_time(text: str) -> None:
    for rule in _RULES:
        assert _seconds(synthetic_bpe(rule), text) < 0.8, rule


@pytest.mark.parametrize("alphabet", ["x", "ab", "12", "-=", "\n", "the ", "\u4e2d", "a\u00e9"])
def test_run_merger_equals_engine(alphabet: str) -> None:
    vocabulary = read_vocabulary(synthetic()["byte_level"]["metadata"])
    encoder = BpeEncoder(vocabulary, lambda: None)
    merger, rng, merged_words = RunMerger(vocabulary.merges), random.Random(alphabet), 0
    for length in [1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 101, 1000, 1001]:
        for word in (alphabet[0] * length, "".join(rng.choices(alphabet, k=length))):
            word = bytelevel.encode(word)
            merged = merger.merge(word)
            if merged is not None:
                pieces, places = merged
                assert [i for p in places for i in run(encoder._engine, pieces[p])] == run(encoder._engine, word)
                merged_words += 1
    assert merged_words


def test_run_merger_declines_what_it_cannot_merge_exactly() -> None:
    merger = RunMerger(["a aa", "a a"])  # aa + a is better than the a + a it comes from
    assert merger.merge("a" * 10) is None
    assert merger.merge("".join(chr(0x4E00 + i) for i in range(100))) is None  # too many different characters
    assert RunMerger(["a a"]).merge("a" * 5) is not None


def test_long_words_use_the_merger() -> None:
    tokenizer = tokenizer_from_metadata(bpe_metadata())
    assert tokenizer.encode("th" * LONG) == [256] * LONG
    assert tokenizer.encode("h" + "th" * LONG)[1:] == [256] * LONG


def test_first_of_equal_merges_counts() -> None:
    assert parse_merges(["a b", "b c", "a b"]) == [("a", "b"), ("b", "c")]
