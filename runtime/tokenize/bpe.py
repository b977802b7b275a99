"""Byte-pair encoding by merge rank, on the Rust engine of `tokenizers`."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from ...formats.errors import TokenizerError
from .engine import run
from .pretokenizers import GROUPS_DIGITS_FROM_RIGHT, PreTokenizer
from .vocabulary import CONTROL, UNKNOWN, Vocabulary

_LONG_NUMBER = re.compile(r"\d{301,}")
_CUT = 300  # a multiple of 3; the look-ahead costs at most _CUT**2 / 6 steps per piece


class BpeEncoder:
    """Words by the pre-tokenizer of the vocabulary, then merges."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        if vocabulary.pre is None:
            raise TokenizerError(f"kind {vocabulary.kind.name!r} has no pre-tokenizer")
        self._pre = vocabulary.pre
        self._lowercase = vocabulary.lowercase and self._pre.alphabet == "words"
        self._engine = _build_engine(vocabulary, self._pre)

    def encode(self, text: str, *, after_special: bool) -> list[int]:
        """Ids of a piece of text without special tokens."""
        if self._pre.alphabet == "spm":
            text = text.replace(" ", "\u2581")
        if self._lowercase:
            text = text.lower()
        if self._pre.rule in GROUPS_DIGITS_FROM_RIGHT and _LONG_NUMBER.search(text):
            pieces = cut_digit_runs(text, only_at_word_end=self._pre.rule != "superbpe")
            return [i for piece in pieces for i in run(self._engine, piece)]
        return run(self._engine, text)


def cut_digit_runs(text: str, *, only_at_word_end: bool) -> list[str]:
    """Cut runs of more than 300 digits into pieces of 300, where grouping by three from the right would cut as well.

    With `only_at_word_end` a run that a letter follows is grouped from the left, as the pattern then does.
    """
    pieces, done = [], 0
    for match in _LONG_NUMBER.finditer(text):
        start, end = match.span()
        from_left = only_at_word_end and end < len(text) and _is_word(text[end])
        cuts = list(range(start + (_CUT if from_left else (end - start) % _CUT), end, _CUT))
        for cut in cuts:
            pieces.append(text[done:cut])
            done = cut
    pieces.append(text[done:])
    return [piece for piece in pieces if piece]


def _is_word(char: str) -> bool:
    """Oniguruma's \\w, which decides where \\b is."""
    category = unicodedata.category(char)
    return category[0] in "LM" or category in ("Nd", "Pc")


def _build_engine(vocabulary: Vocabulary, pre: PreTokenizer) -> object:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    merges = parse_merges(vocabulary.merges)
    # Control tokens are matched before this stage or not at all: left in, a prompt could spell one out. A few
    # vocabularies build ordinary tokens from one, so those keep them.
    ordinary = dict(vocabulary.ids)
    for i in vocabulary.ids_of_type(CONTROL, UNKNOWN):
        ordinary.pop(vocabulary.tokens[i], None)
    options = {"ignore_merges": pre.ignore_merges, "byte_fallback": pre.alphabet == "spm"}
    try:
        model = models.BPE(vocab=ordinary, merges=merges, **options)
    except Exception:
        try:
            model = models.BPE(vocab=vocabulary.ids, merges=merges, **options)
        except Exception as error:
            raise TokenizerError(f"'tokenizer.ggml.merges' does not fit the vocabulary: {error}") from error
    steps: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    if pre.alphabet == "bytes":
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False))
    if pre.alphabet == "words":
        steps = [pre_tokenizers.Split(Regex(r"\s+"), "removed")]
    engine = Tokenizer(model)
    engine.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return engine


def parse_merges(merges: list[str]) -> list[tuple[str, str]]:
    """The two sides of each merge, which one space separates; of merges written twice, the first counts."""
    if len(set(merges)) != len(merges):
        merges = list(dict.fromkeys(merges))
    pairs: list[tuple[str, str]] = [tuple(merge.split(" ", 1)) for merge in merges]  # type: ignore[misc]
    for i, pair in enumerate(pairs):
        if len(pair) != 2 or not (pair[0] and pair[1]):
            raise TokenizerError(f"'tokenizer.ggml.merges'[{i}] is no pair of tokens: {ascii(merges[i])[:80]}")
    return pairs
