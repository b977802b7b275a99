"""Byte-pair encoding by merge rank: words by pattern, then merges by the Rust engine of `tokenizers`."""

from __future__ import annotations

from itertools import repeat
from typing import Any
from unicodedata import normalize

import numpy as np

from ...formats.errors import TokenizerError
from . import bytelevel
from .engine import Check, ChunkCache, run
from .longwords import LONG, RunMerger
from .vocabulary import CONTROL, UNKNOWN, Vocabulary
from .words import WordSplitter, is_space


class BpeEncoder:
    """Chunk by chunk; what became of a short chunk is remembered, since most of a text is words seen before."""

    def __init__(self, vocabulary: Vocabulary, check: Check) -> None:
        if vocabulary.pre is None:
            raise TokenizerError(f"kind {vocabulary.kind.name!r} has no pre-tokenizer")
        self._pre = vocabulary.pre
        self._normal_form = vocabulary.normal_form
        self._lowercase = vocabulary.lowercase and self._pre.alphabet == "words"
        self._splitter = WordSplitter(self._pre)
        self._engine = _build_engine(vocabulary, check)
        self._merger = RunMerger(vocabulary.merges)
        self._words = ChunkCache(self._encode_word)
        self._chunks = ChunkCache(lambda chunk: self._words.encode(self._splitter.words(chunk)))

    def encode(self, text: str, *, after_special: bool) -> list[int]:
        """Ids of a piece of text without special tokens."""
        if self._normal_form:
            text = normalize(self._normal_form, text)
        if self._pre.alphabet == "spm":
            text = text.replace(" ", "\u2581")
        if self._lowercase:
            text = text.lower()
        chunks = self._splitter.chunks(text)
        return self._words.encode(chunks) if self._splitter.is_single else self._chunks.encode(chunks)

    def _encode_word(self, word: str) -> list[int]:
        if self._pre.alphabet == "words" and is_space(word[0]):
            return []
        if self._pre.alphabet == "bytes":
            word = bytelevel.encode(word)
        merged = self._merger.merge(word) if len(word) > LONG else None
        if merged is None:
            return run(self._engine, word)
        # A piece is a token or a single character; the engine knows its id, or the byte tokens for it.
        pieces, places = merged
        ids = [run(self._engine, piece) for piece in pieces]
        if all(len(found) == 1 for found in ids):
            return np.array([found[0] for found in ids])[places].tolist()  # type: ignore[no-any-return]
        return [i for place in places.tolist() for i in ids[place]]


def _build_engine(vocabulary: Vocabulary, check: Check) -> Any:
    from tokenizers import Tokenizer, models

    merges = parse_merges(vocabulary.merges)
    # Control tokens are matched before this stage or not at all: left in, a prompt could spell one out. A few
    # vocabularies build ordinary tokens from one, so those keep them.
    ordinary = dict(vocabulary.ids)
    for i in vocabulary.ids_of_type(CONTROL, UNKNOWN):
        ordinary.pop(vocabulary.tokens[i], None)
    pre = vocabulary.pre
    options = {
        "ignore_merges": pre is not None and pre.ignore_merges,
        "byte_fallback": pre is not None and pre.alphabet != "bytes",
    }
    # This call holds Python's lock: 40 ms for SmolLM2's 49,152 tokens. So does all else that makes a BPE, two to four
    # times as long: Tokenizer.from_str, from_buffer and from_file, BPE.from_file (tokenizers 0.23).
    check()
    try:
        return Tokenizer(models.BPE(vocab=ordinary, merges=merges, **options))
    except Exception:
        try:
            return Tokenizer(models.BPE(vocab=vocabulary.ids, merges=merges, **options))
        except Exception as error:
            raise TokenizerError(f"'tokenizer.ggml.merges' does not fit the vocabulary: {error}") from error


def parse_merges(merges: list[str]) -> list[tuple[str, str]]:
    """The two sides of each merge, which one space separates; of merges written twice, the first counts."""
    if len(set(merges)) != len(merges):
        merges = list(dict.fromkeys(merges))
    # Half a million merges: one split of one string takes a third of the time of as many splits.
    sides = " ".join(merges).split(" ")
    if merges and (set(map(str.count, merges, repeat(" "))) != {1} or "" in sides):
        bad = next(i for i, merge in enumerate(merges) if merge.count(" ") != 1 or "" in merge.split(" "))
        raise TokenizerError(f"'tokenizer.ggml.merges'[{bad}] is no pair of tokens: {ascii(merges[bad])[:80]}")
    return list(zip(sides[::2], sides[1::2], strict=False))
