"""Merging one very long word of few different characters ("xxxx...", "-=-=-=...") with NumPy.

The engine's priority queue holds every pair of a word: a million equal characters outgrow the CPU's caches and take
more than proportional time. A word of few different characters has few different pairs, so it can be merged pair by
pair, all places at once, in a few passes over an array.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONG = 4096  # characters; shorter words are faster in the engine
_MAX_DIFFERENT = 64  # characters; more have too many merges among them
_MAX_PIECES = 40_000  # their pairs have to fit int32
_MAX_ROUNDS = 400
_NEVER = np.iinfo(np.int64).max


class RunMerger:
    """Exact, or None: the caller then uses the engine.

    Merging all places of the best pair at once equals merging the best place again and again as long as no merge
    creates a pair that is better than the one it came from. That is checked before each round.
    """

    def __init__(self, merges: list[str]) -> None:
        # One string instead of half a million: merges are needed again for such words only.
        self._merges = "\0" + "\0".join(merges) + "\0"

    def merge(self, word: str) -> tuple[list[str], NDArray[np.intp]] | None:
        """(pieces, places): after all merges `word` is pieces[places[0]] + pieces[places[1]] + ...

        Single characters that nothing merges are pieces too.
        """
        points = np.frombuffer(word.encode("utf-32-le"), "<u4")
        present = np.flatnonzero(np.bincount(points))
        alphabet = [chr(point) for point in present]
        if len(alphabet) > _MAX_DIFFERENT or "\0" in alphabet or " " in alphabet:
            return None
        pieces, ranks = _Table(alphabet, self._among(alphabet)).load()
        index = {piece: i for i, piece in enumerate(pieces)}
        symbol_of = np.zeros(int(present[-1]) + 1, np.int32)
        symbol_of[present] = [index[char] for char in alphabet]
        merged = _merge_rounds(symbol_of[points], ranks, pieces, index)
        if merged is None:
            return None
        used, places = np.unique(merged, return_inverse=True)
        return [pieces[int(i)] for i in used], places

    def _among(self, alphabet: list[str]) -> list[tuple[str, str]]:
        """The merges whose two sides consist of the given characters, in order of rank."""
        chars = "".join(map(re.escape, alphabet))
        found = re.findall(f"(?<=\0)([{chars}]+) ([{chars}]+)(?=\0)", self._merges)
        return list(dict.fromkeys(found))


class _Table:
    """Pieces that can arise, and the rank of each pair of them."""

    def __init__(self, alphabet: list[str], merges: list[tuple[str, str]]) -> None:
        self._pieces, self._merges = dict.fromkeys(alphabet), merges

    def load(self) -> tuple[list[str], dict[tuple[int, int], int]]:
        for left, right in self._merges:
            self._pieces |= dict.fromkeys((left, right, left + right))
        pieces = list(self._pieces)
        index = {piece: i for i, piece in enumerate(pieces)}
        return pieces, {(index[a], index[b]): rank for rank, (a, b) in enumerate(self._merges)}


def _merge_rounds(
    symbols: NDArray[np.int32], ranks: dict[tuple[int, int], int], pieces: list[str], index: dict[str, int]
) -> NDArray[np.int32] | None:
    """Merge the best pair everywhere until no pair is left; None when the places would influence each other."""
    count = len(pieces)
    if count > _MAX_PIECES:
        return None
    for _ in range(_MAX_ROUNDS):
        keys = symbols[:-1] * count + symbols[1:]
        present = {divmod(int(key), count) for key in _distinct(keys, count * count)}
        best = min(present & ranks.keys(), key=ranks.__getitem__, default=None)
        if best is None:
            return symbols
        merged = index[pieces[best[0]] + pieces[best[1]]]
        neighbours = {symbol for pair in present for symbol in pair} | {merged}
        pairs = {(merged, other) for other in neighbours} | {(other, merged) for other in neighbours}
        if any(ranks.get(pair, _NEVER) < ranks[best] for pair in pairs):
            return None
        symbols = _merge_everywhere(symbols, keys == best[0] * count + best[1], merged, overlap=best[0] == best[1])
    return None


def _distinct(keys: NDArray[np.int32], bound: int) -> NDArray[np.integer[Any]]:
    """The different values in `keys`, all below `bound`. Counting beats sorting while the counters fit the caches."""
    return np.flatnonzero(np.bincount(keys)) if bound <= 1 << 20 else np.unique(keys)


def _merge_everywhere(
    symbols: NDArray[np.int32], places: NDArray[np.bool_], merged: int, *, overlap: bool
) -> NDArray[np.int32]:
    """Replace the pairs that begin at `places`; of overlapping places (a run of one symbol) every second counts."""
    starts = np.flatnonzero(places)
    if overlap:
        run_begins = np.flatnonzero(np.diff(starts, prepend=-2) != 1)
        within = np.arange(len(starts)) - np.repeat(run_begins, np.diff(run_begins, append=len(starts)))
        starts = starts[within % 2 == 0]
    keep = np.ones(len(symbols), np.bool_)
    keep[starts + 1] = False
    symbols[starts] = merged
    return symbols[keep]
