"""Twin tests: words by Python's `re` against the Oniguruma engine of `tokenizers`, with the patterns as published."""

from __future__ import annotations

import random
import sys
import unicodedata

import pytest
from halfbyte.runtime.tokenize.pretokenizers import (
    _CLITIC_ANY_CASE,
    _DIGITS_FROM_RIGHT,
    PATTERNS,
    PreTokenizer,
)
from halfbyte.runtime.tokenize.words import WordSplitter
from tokenizers import Regex, pre_tokenizers

# Where our spelling of a pattern differs from the published one: ours -> published.
_PUBLISHED = {
    _CLITIC_ANY_CASE: "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    _DIGITS_FROM_RIGHT: r"\d{1,3}(?=(?:\d{3})*\b)",
    r"(?<!\s)\s+$": r"\s+$",
    r"(?<![^\S\r\n])": "",
    "IMGIMG[A-I]{1,4}Z": "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    r"(?=(?:\d{3})+(?!\d))": r"(?=(\d{3})+(?!\d))",
}
_COMMON = " \n\t\r'.,!/_-<>|aAzZsStTrReE019\u00e9\u00c9\u00df\u017f\u0301\u0660\u00b2\u4e2d\u3042\ud55c\u0e01\u3000"


def _published(pattern: str) -> str:
    for ours, theirs in _PUBLISHED.items():
        pattern = pattern.replace(ours, theirs)
    return pattern


def _texts() -> list[str]:
    rng = random.Random(20)
    texts = ["".join(rng.choices(_COMMON, k=rng.randint(1, 40))) for _ in range(150)]
    # Every assigned code point bare, and the first of them between other characters.
    points = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    assigned = [c for c in points if unicodedata.category(c) not in ("Cn", "Co")]
    texts += ["".join(assigned[i : i + 8192]) for i in range(0, len(assigned), 8192)]
    texts += ["".join(c + rng.choice(" a1!'\n") for c in assigned[i : i + 4096]) for i in range(0, 40_000, 4096)]
    return texts


def test_bailing_moe_cuts_like_qwen2(texts: list[str]) -> None:
    published = (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    )
    engine = pre_tokenizers.Split(Regex(published), "isolated")
    for text in texts:
        assert list(WordSplitter(PreTokenizer("qwen2")).chunks(text)) == [w for w, _ in engine.pre_tokenize_str(text)]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return _texts()


@pytest.mark.parametrize("rule", sorted(PATTERNS))
def test_words_equal_onigurumas(rule: str, texts: list[str]) -> None:
    splitter = WordSplitter(PreTokenizer(rule))
    steps = [pre_tokenizers.Split(Regex(_published(pattern)), "isolated") for pattern in PATTERNS[rule]]
    engine = pre_tokenizers.Sequence(steps)
    for text in texts:
        ours = [word for chunk in splitter.chunks(text) for word in splitter.words(chunk)]
        theirs = [word for word, _ in engine.pre_tokenize_str(text)]
        assert ours == theirs


@pytest.mark.parametrize("rule", ["tiny_aya", "afmoe", "superbpe"])
@pytest.mark.parametrize("digits", [60, 61, 62, 63, 64, 119, 121, 200])
def test_cutting_long_numbers_changes_nothing(rule: str, digits: int) -> None:
    splitter = WordSplitter(PreTokenizer(rule))
    engine = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[rule]])
    # A letter behind the number: afmoe then cuts no digits at all, and our pieces of 60 are as good.
    for end in (" x", ".") if rule == "afmoe" else (" x", ".", "\u0301", "abc"):
        text = f"a {'7' * digits}{end} {'1' * 61}"
        ours = [word for chunk in splitter.chunks(text) for word in splitter.words(chunk)]
        assert ours == [word for word, _ in engine.pre_tokenize_str(text)]
