"""What the bytes of each block type mean to a GPU: a device function for each, which unpacks 32 weights.

    unpack(w, row, group, table, codes, scales)

`w` is the tensor as uint8, `row` the offset of the row's first byte, `group` the number of 32 weights in it. `codes`,
int32[8], gets four signed bytes in each, in the order of the weights; `scales`, float32[4], two scales and two offsets:
a weight of the first sixteen is scales[0] * code + scales[2], of the others scales[1] * code + scales[3]. `table` is
what `table_of` gives for the type: the points of its grid, for types that have one.

The definitions are those of `formats/quants`.
"""

from __future__ import annotations

from .table import HALVES, PLAIN, UNPACK, table_of

__all__ = ["HALVES", "PLAIN", "UNPACK", "table_of"]
