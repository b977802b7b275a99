"""Cutting text into words by the patterns of a pre-tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .patterns import compile_split, limit_of
from .pretokenizers import GROUPS_DIGITS_FROM_RIGHT, PreTokenizer

_CUT = 60  # a multiple of 3; the look-ahead costs at most _CUT**2 / 6 steps per piece
_LONG_NUMBER = re.compile(rf"\d{{{_CUT + 1},}}")


class WordSplitter:
    """Two steps, so that callers can remember what became of a chunk: `chunks` by the first pattern, then `words`."""

    def __init__(self, pre: PreTokenizer) -> None:
        self._first, *self._rest = pre.patterns
        self.is_single = not self._rest  # chunks are words
        self._groups_digits = pre.rule in GROUPS_DIGITS_FROM_RIGHT
        self._only_at_word_end = pre.rule != "superbpe"

    def chunks(self, text: str) -> Iterable[str]:
        """The matches and gaps of the first pattern."""
        split = compile_split(self._first, limit_of(text)).split
        if self._groups_digits and _LONG_NUMBER.search(text):
            pieces = cut_digit_runs(text, only_at_word_end=self._only_at_word_end)
            return [chunk for piece in pieces for chunk in split(piece) if chunk]
        return filter(None, split(text))

    def words(self, chunk: str) -> list[str]:
        """The words of one chunk: what the other patterns leave."""
        words = [chunk]
        for pattern in self._rest:
            split = compile_split(pattern, limit_of(chunk)).split
            pieces = {word: [piece for piece in split(word) if piece] for word in set(words)}
            words = [piece for word in words for piece in pieces[word]]
        return words


def is_space(char: str) -> bool:
    """White space as the patterns see it."""
    return compile_split(r"\s", limit_of(char)).match(char) is not None


def cut_digit_runs(text: str, *, only_at_word_end: bool) -> list[str]:
    """Cut runs of more than 60 digits into pieces of 60, where grouping by three from the right would cut as well.

    With `only_at_word_end` a run that a letter follows is grouped from the left, as the pattern then does.
    """
    is_word = compile_split(r"\w", limit_of(text)).match
    pieces, done = [], 0
    for match in _LONG_NUMBER.finditer(text):
        start, end = match.span()
        from_left = only_at_word_end and is_word(text, end)
        for cut in range(start + (_CUT if from_left else (end - start) % _CUT), end, _CUT):
            pieces.append(text[done:cut])
            done = cut
    pieces.append(text[done:])
    return [piece for piece in pieces if piece]
