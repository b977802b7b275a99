"""Codes of 256 columns into the lanes of a packet: vector m has the m-th eight of each 32 columns (packets.py).

Eight codes are a 64-bit word, so this is a transposition of words. Where blocks lie between other bytes, words are
picked out of whole registers: with AVX-512 VBMI one instruction does it for half of 256 columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ...simd.emit import I1, I8, I64, Emitter, Vec

IN_ORDER = ((0, 1), (2, 3), (4, 5), (6, 7))
REGISTER = 64  # bytes


def in_lanes(vectors: Sequence[Vec], groups: Sequence[tuple[int, int]] = IN_ORDER) -> list[Vec]:
    """Four vectors of 64 codes, each of them two groups of 32 columns (`groups`), into lanes."""
    e = vectors[0].e
    words = [e.bitcast(v, I64, 8) for v in vectors]
    place = {}  # group -> (pair, which of the pair, which half of it)
    for i, pair in enumerate(groups):
        for half, group in enumerate(pair):
            place[group] = (i // 2, i % 2, half)
    result: list[Vec] = [words[0]] * 4
    for odd in (0, 1):  # words 0 and 2 of a group, then 1 and 3: each step takes the even or the odd words of both
        mixed = [
            e.shuffle(words[2 * p], words[2 * p + 1], [2 * k + odd + 8 * who for k in range(4) for who in (0, 1)])
            for p in (0, 1)
        ]
        for second in (0, 1):
            mask = [8 * p + 4 * half + 2 * second + who for p, who, half in (place[g] for g in range(8))]
            result[2 * second + odd] = e.bitcast(e.shuffle(*mixed, mask), I8, 64)
    return result


def spread(values: Vec) -> list[Vec]:
    """One value for each group as lanes: two lanes a group of 32; of groups of 16 the first and the second ones."""
    if values.n == 8:
        return [values.take([lane // 2 for lane in range(16)])]
    return [values.take([lane // 2 * 2 + half for lane in range(16)]) for half in (0, 1)]


class Blocks:
    """Eight blocks that follow each other, as registers to pick from."""

    def __init__(self, e: Emitter, at: ir.Value, block_bytes: int) -> None:
        self.e, self.at, self.block_bytes = e, at, block_bytes

    def runs(self, offset: int) -> tuple[Vec, Vec]:
        """Of the 16 bytes at `offset` of each block the first eight, and the second eight."""
        e = self.e
        if e.isa.picks_bytes and 2 * self.block_bytes <= REGISTER:
            return self._picked(offset, 8), self._picked(offset + 8, 8)
        runs = [e.load(I8, 16, self.at, self.block_bytes * i + offset) for i in range(8)]
        even, odd = (e.bitcast(e.concat(runs[first::2]), I64, 8) for first in (0, 1))
        order = [[8 * (k % 2) + k // 2 * 2 + o for k in range(8)] for o in (0, 1)]
        first, second = (e.bitcast(e.shuffle(even, odd, o), I8, 64) for o in order)
        return first, second

    def fields(self, offset: int, element: ir.Type, copies: int = 1) -> Vec:
        """The scalar at `offset` of each block, each of them `copies` times."""
        e, n = self.e, element.width // 8
        if not e.isa.picks_bytes:
            found = e.gather([e.load(element, 0, self.at, self.block_bytes * i + offset) for i in range(8)])
            return found.take([k // copies for k in range(8 * copies)])
        return e.bitcast(self._picked(offset, n, copies).take(range(8 * n * copies)), element, 8 * copies)

    def _picked(self, offset: int, n: int, copies: int = 1) -> Vec:
        """n bytes at `offset` of each block, out of one register for as many blocks as it holds. Two registers that are
        picked from at the same places become one instruction, or a pick that leaves the other lanes.
        """
        e, size = self.e, self.block_bytes
        per = 1 + (REGISTER - n) // size  # blocks of a register
        result = None
        for first in range(0, 8, per):
            last = min(first + per, 8) - 1
            # As near to the first block's begin as it can be: then others pick from the same register.
            start = min(size * first + max(0, size * (last - first) + offset + n - REGISTER), 8 * size - REGISTER)
            lanes = [(i // copies, k) for i in range(8 * copies) for k in range(n)]
            there = [first <= block <= last for block, _ in lanes] + [False] * (REGISTER - len(lanes))
            where = [size * block + offset + k - start for block, k in lanes]
            places = [place if now else 0 for place, now in zip(where, there, strict=False)]
            picked = e.pick_bytes(e.load(I8, REGISTER, self.at, start), places)
            result = picked if result is None else e.select(e.const(I1, there), picked, result)
        assert result is not None
        return result
