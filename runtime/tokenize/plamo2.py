"""PLaMo-2: the segmentation with the highest sum of scores, found from the end of the text."""

from __future__ import annotations

from ...formats.errors import TokenizerError
from .keys import byte_value
from .vocabulary import BYTE, CONTROL, UNKNOWN, Vocabulary

# Scores are summed as integers in units of 1e-4, as the model's own tokenizer does, so that ties are exact ties.
_SCALE = 1e4
_UNKNOWN_SCORE = -10_000_000  # one character spelled in byte tokens
_TOO_LOW = -20_000_000


class Plamo2Encoder:
    """Dynamic programming over characters; of equal sums the longer first token wins."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._pieces, self._lengths = _pieces(vocabulary)
        bytes_of = {byte_value(vocabulary.tokens[i]): i for i in vocabulary.ids_of_type(BYTE)}
        missing = [value for value in range(256) if value not in bytes_of]
        if missing:
            raise TokenizerError(f"a plamo2 vocabulary needs all 256 byte tokens, <0x{missing[0]:02X}> is missing")
        self._bytes = [bytes_of[value] for value in range(256)]

    def encode(self, text: str, *, after_special: bool) -> list[int]:
        """Ids of a piece of text without special tokens; a leading byte order mark is dropped."""
        text = text.removeprefix("\ufeff")
        steps = self._best_steps(text)
        out, pos = [], 0
        while pos < len(text):
            length, token = steps[pos]
            out += [token] if token >= 0 else [self._bytes[byte] for byte in text[pos].encode()]
            pos += length
        return out

    def _best_steps(self, text: str) -> list[tuple[int, int]]:
        """(characters, id or -1) of the best first token of each text[i:]."""
        count = len(text)
        cost = [0] * (count + 1)
        steps = [(1, -1)] * count
        for i in range(count - 1, -1, -1):
            best, step = None, (1, -1)
            for length in self._lengths.get(text[i : i + 2], ()) or self._lengths.get(text[i], ()):
                found = self._pieces.get(text[i : i + length])
                if found is None or i + length > count:
                    continue
                total = cost[i + length] - found[0]
                if best is None or total < best:
                    best, step = total, (length, found[1])
            total = cost[i + 1] - _UNKNOWN_SCORE
            if best is None or total < best:
                best, step = total, (1, -1)
            cost[i], steps[i] = best, step
        return steps


def _pieces(vocabulary: Vocabulary) -> tuple[dict[str, tuple[int, int]], dict[str, list[int]]]:
    """Text -> (score, id), and the lengths to try by the first two characters, longest first."""
    skipped = set(vocabulary.ids_of_type(BYTE, CONTROL, UNKNOWN))
    pieces = {}
    for token, i in vocabulary.ids.items():
        score = round(float(vocabulary.scores[i]) * _SCALE)
        if i not in skipped and score > _TOO_LOW:
            pieces[token] = (score, i)
    lengths: dict[str, set[int]] = {}
    for token in pieces:
        lengths.setdefault(token[:2], set()).add(len(token))
    for start, found in lengths.items():
        if start[0] in pieces:
            found.add(1)
    return pieces, {start: sorted(found, reverse=True) for start, found in lengths.items()}
