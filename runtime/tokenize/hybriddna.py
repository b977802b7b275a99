"""Text by BPE, and between <dna> and </dna> tokens of six bases."""

from __future__ import annotations

import re

from .bpe import BpeEncoder
from .engine import Check
from .vocabulary import Vocabulary

_BASES = 6
# A vocabulary holds CCCCCC twice: as text and, with this private-use character behind it, as bases.
KMER_MARK = "\ue000"
_REGION = re.compile("<dna>(.*?)(</dna>|$)", re.DOTALL)
_UPPER = {ord(low): low.upper() for low in "abcdefghijklmnopqrstuvwxyz"}


class HybridDnaEncoder:
    """BPE outside of <dna>...</dna>; inside, six bases per token, the last padded with A."""

    def __init__(self, vocabulary: Vocabulary, check: Check) -> None:
        self._text = BpeEncoder(vocabulary, check)
        self._ids = vocabulary.ids
        self._marks = [vocabulary.ids.get(mark) for mark in ("<dna>", "</dna>", "<oov>")]

    def encode(self, text: str, *, after_special: bool) -> list[int]:
        """Ids of a piece of text without special tokens."""
        begin, end, unknown = self._marks
        if begin is None or end is None or unknown is None:
            return self._text.encode(text, after_special=after_special)
        out, done = [], 0
        for match in _REGION.finditer(text):
            out += self._text.encode(text[done : match.start()], after_special=False)
            out.append(begin)
            out += self._bases(match[1], unknown)
            out += [end] if match[2] else []
            done = match.end()
        return out + self._text.encode(text[done:], after_special=False)

    def _bases(self, sequence: str, unknown: int) -> list[int]:
        sequence = sequence.translate(_UPPER)
        kmers = (sequence[i : i + _BASES].ljust(_BASES, "A") for i in range(0, len(sequence), _BASES))
        return [self._ids.get(kmer + KMER_MARK, unknown) for kmer in kmers]
