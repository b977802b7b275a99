"""Memory of a plan: which buffers may share bytes, and which operations must wait for which.

A plan is a list of operations that read and write buffers. An operation needs a barrier before it exactly when it
touches bytes that an operation since the last barrier wrote, or writes bytes that one read. The operations between two
barriers that the buffers themselves ask for are a phase. A buffer lives from the first phase that touches it to the
last; buffers whose lives do not overlap may overlap in the arena. So sharing memory never costs a barrier of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

ALIGNMENT = 64  # a cache line


@dataclass(frozen=True, eq=False)
class Buffer:
    """A piece of the arena, `n_bytes` long at its largest."""

    name: str
    n_bytes: int


@dataclass(frozen=True)
class Access:
    """What one operation reads and writes. Shared state outside the arena (key/value pages) counts as a buffer."""

    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]


@dataclass(frozen=True)
class Arena:
    """Offsets of the buffers, and the bytes they need together."""

    offsets: dict[Buffer, int]
    n_bytes: int

    def overlap(self, a: Buffer, b: Buffer) -> bool:
        if a is b:
            return True
        if a not in self.offsets or b not in self.offsets:
            return False
        start, other = self.offsets[a], self.offsets[b]
        return start < other + b.n_bytes and other < start + a.n_bytes


_APART = Arena({}, 0)  # no buffer overlaps another


def place(accesses: Sequence[Access], *, outside: Sequence[Buffer] = ()) -> Arena:
    """Give every buffer an offset: largest first, at the lowest offset that no buffer alive at the same time uses."""
    lives: dict[Buffer, tuple[int, int]] = {}
    phases = accumulate(barriers(accesses, _APART))
    for phase, access in zip(phases, accesses, strict=True):
        for buffer in (*access.reads, *access.writes):
            first, _ = lives.get(buffer, (phase, phase))
            lives[buffer] = (first, phase)
    for buffer in outside:
        lives.pop(buffer, None)
    offsets: dict[Buffer, int] = {}
    for buffer in sorted(lives, key=lambda b: (-b.n_bytes, lives[b])):
        offsets[buffer] = _lowest_gap(buffer, lives, offsets)
    total = max((offsets[b] + b.n_bytes for b in offsets), default=0)
    return Arena(offsets, total)


def _lowest_gap(buffer: Buffer, lives: dict[Buffer, tuple[int, int]], offsets: dict[Buffer, int]) -> int:
    first, last = lives[buffer]
    taken = sorted(
        (offsets[other], offsets[other] + other.n_bytes)
        for other in offsets
        if lives[other][0] <= last and first <= lives[other][1]
    )
    offset = 0
    for start, stop in taken:
        if offset + buffer.n_bytes <= start:
            break
        offset = max(offset, -(-stop // ALIGNMENT) * ALIGNMENT)
    return offset


def barriers(accesses: Sequence[Access], arena: Arena) -> list[bool]:
    """For each operation, whether all threads must have finished the earlier ones first."""
    result: list[bool] = []
    reads: list[Buffer] = []
    writes: list[Buffer] = []
    for access in accesses:
        touched = (*access.reads, *access.writes)
        conflict = _any_overlap(arena, touched, writes) or _any_overlap(arena, access.writes, reads)
        if conflict:
            reads, writes = [], []
        reads += access.reads
        writes += access.writes
        result.append(conflict)
    return result


def _any_overlap(arena: Arena, left: Sequence[Buffer], right: Sequence[Buffer]) -> bool:
    return any(arena.overlap(a, b) for a in left for b in right)
