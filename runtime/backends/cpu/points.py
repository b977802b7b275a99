"""The points of grids in the form in which encoders read them: a table for each type that rounds weights to some.

A point is a code: four bits for each coordinate, the number of its level. A table of int32 has three parts, see Layout:

    entries   of each place that weights can be rounded to, on the grid its code, and off it ~(first << 8 | count): the
              points around it are so many vectors of codes from that vector on
    numbers   of each place on the grid that of its point, which is what blocks store
    vectors   16 codes each; the last one of a place repeats its last code
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ....formats.quants import iq1, iq2, iq3
from ....formats.quants.grids import Grid, Nearby, grid
from ....formats.quants.lattice import Search
from .args import GROUPS, LINE_BYTES

COUNT_BITS = 8


def _found_by(search: Search) -> tuple[str, Callable[[], Nearby]]:
    return search.grid, search.nearby


# Of each type the name of its grid, and what finds points near others.
_TYPES: dict[str, tuple[str, Callable[[], Nearby]]] = {
    **dict.fromkeys(("IQ1_S", "IQ1_M"), ("IQ1_S", iq1.nearby)),
    **{t.__name__: _found_by(t.search) for t in (iq2.IQ2_XXS, iq2.IQ2_XS, iq2.IQ2_S)},
    **{t.__name__: _found_by(t.search) for t in (iq3.IQ3_XXS, iq3.IQ3_S)},
}
LATTICE_TYPES = frozenset(_TYPES)


@dataclass(frozen=True)
class Layout:
    """Where the parts of a table are."""

    radix: int  # how many levels there are
    size: int  # coordinates of a point
    first: int  # the code of point 0

    @classmethod
    def of(cls, type_name: str) -> Layout:
        points = grid(_TYPES[type_name][0])
        return cls(points.radix, points.levels.shape[1], int(_codes(points)[0]))

    @property
    def places(self) -> int:
        """How many there are. Place p is the sum of level[i] * radix ** i."""
        return int(self.radix**self.size)

    @property
    def numbers_at(self) -> int:
        """In bytes, as all offsets."""
        return -(-4 * self.places // LINE_BYTES) * LINE_BYTES

    @property
    def vectors_at(self) -> int:
        return 2 * self.numbers_at


@cache
def table_of(type_name: str) -> NDArray[np.int32]:
    """Made when it is asked for first. It begins on a cache line."""
    near, layout = _TYPES[type_name][1](), Layout.of(type_name)
    codes = _codes(near.grid)
    is_on = near.on_grid >= 0
    counts = np.where(is_on, 0, -(-near.counts.astype(np.int32) // GROUPS))
    first = np.cumsum(counts, dtype=np.int32) - counts
    assert counts.max() < 1 << COUNT_BITS and first[-1] < 1 << 30 - COUNT_BITS
    table = _aligned(layout.vectors_at // 4 + int(counts.sum()) * GROUPS)
    table[: layout.places] = np.where(is_on, codes[near.on_grid], ~(first << COUNT_BITS | counts))
    table[layout.numbers_at // 4 :][: layout.places] = near.on_grid
    place = np.repeat(np.arange(layout.places), counts * GROUPS)
    nth = np.arange(len(place)) - GROUPS * first[place]
    table[layout.vectors_at // 4 :] = codes[near.points[near.starts[place] + np.minimum(nth, near.counts[place] - 1)]]
    table.flags.writeable = False
    return table


def _codes(points: Grid) -> NDArray[np.int32]:
    shifted = points.levels.astype(np.int32) << 4 * np.arange(points.levels.shape[1])
    codes: NDArray[np.int32] = shifted.sum(axis=1, dtype=np.int32)
    return codes


def _aligned(count: int) -> NDArray[np.int32]:
    memory = np.zeros(4 * count + LINE_BYTES, np.uint8)
    begin = -memory.ctypes.data % LINE_BYTES
    return memory[begin : begin + 4 * count].view(np.int32)
