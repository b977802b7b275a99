"""Tables of points for encoders, against what finds points in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import iq1, iq2, iq3
from halfbyte.runtime.backends.cpu.points import COUNT_BITS, LATTICE_TYPES, Layout, table_of

NEARBY = {
    **{kind.__name__: iq1.nearby for kind in (iq1.IQ1_S, iq1.IQ1_M)},
    **{t.__name__: t.search.nearby for t in (iq2.IQ2_XXS, iq2.IQ2_XS, iq2.IQ2_S, iq3.IQ3_XXS, iq3.IQ3_S)},
}


def levels(code: int, size: int) -> list[int]:
    return [code >> 4 * i & 15 for i in range(size)]


@pytest.mark.parametrize("name", sorted(LATTICE_TYPES))
def test_a_table_says_what_is_near(name: str) -> None:
    near, layout, table = NEARBY[name](), Layout.of(name), table_of(name)
    vectors = table[layout.vectors_at // 4 :].reshape(-1, 16)
    assert table.ctypes.data % 64 == 0 and layout.places == near.on_grid.size
    for place in np.random.default_rng(1).choice(layout.places, 300, replace=False):
        entry, number = int(table[place]), int(table[layout.numbers_at // 4 + place])
        assert number == near.on_grid[place]
        if number >= 0:
            assert levels(entry, layout.size) == near.grid.levels[number].tolist()
            continue
        first, count = ~entry >> COUNT_BITS, ~entry & (1 << COUNT_BITS) - 1
        own = vectors[first : first + count].reshape(-1)
        expected = near.points[near.starts[place] :][: near.counts[place]]
        found = [levels(int(code), layout.size) for code in own]
        assert found[: len(expected)] == near.grid.levels[expected].tolist()
        assert 0 <= len(found) - len(expected) < 16 and (own[len(expected) :] == own[len(expected) - 1]).all()


def test_point_zero_and_types() -> None:
    assert {GGMLType[name].block_size for name in LATTICE_TYPES} == {256}
    assert all(Layout.of(name).first == table_of(name)[_place_of_point_zero(name)] for name in LATTICE_TYPES)


def _place_of_point_zero(name: str) -> int:
    return int(np.flatnonzero(NEARBY[name]().on_grid == 0)[0])
