"""Activations to bfloat16, laid out as the tiles that linear_tiles multiplies with.

Tile (i, k) holds 16 rows and 32 columns: in its line p the columns 2p and 2p + 1 of all rows, a row every four bytes.
Rows past the last are zero. The low parts, what rounding to bfloat16 dropped, make 16 significant bits of the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...jit import Kernel, kernel_family
from ...simd import tiles
from ...simd.emit import F32, Emitter, Vec
from ...simd.types import address, emitted
from ..share import rows_of, share


def _tile_maker(exact: bool) -> Any:
    @emitted(types.void, types.UniTuple(address, 4), types.int64)
    def make(e: Emitter, at: Vec, used: Vec) -> None:
        """at: x of the first row and column, bytes from row to row, tile, tile of low parts; `used` rows exist."""
        x, stride, high_at, low_at = (e.b.extract_value(at.ll, i) for i in range(4))
        high, low = [], []
        for r in range(tiles.ROWS):
            exists = e.b.icmp_signed("<", ir.Constant(used.ll.type, r), used.ll)
            # A row that does not exist is read from the first one, and made zero.
            row = e.b.select(exists, e.b.add(x, e.b.mul(stride, ir.Constant(stride.type, r))), x)
            keep = e.splat(Vec(e, e.b.select(exists, ir.Constant(F32, 1.0), ir.Constant(F32, 0.0))), 16)
            values = [e.load(F32, 16, row, 64 * i) * keep for i in (0, 1)]
            high.append(tiles.brain_pairs(e, *values))
            if exact:
                rounded = tiles.brain_value(e, high[-1])
                low.append(tiles.brain_pairs(e, *(v - w for v, w in zip(values, rounded, strict=True))))
        for lines, to in ((high, high_at), (low, low_at)):
            for p, line in enumerate(tiles.transposed(lines) if lines else ()):
                e.store(line, to, 64 * p)

    return make


@kernel_family("brain")
def brain(variant: str) -> Kernel:
    """x float32 [rows, cols] -> high, and of variant "exact" also low, bfloat16 [rows / 16, cols / 32, 16, 16, 2]."""
    make = _tile_maker(variant == "exact")

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        rows, columns = rows_of(a, step), a.cols // 32
        start, stop = share((rows + 15) // 16 * columns, 1, tid, nth)
        stride = np.uint64(4 * a.cols)
        for i in range(start, stop):
            row = i // columns * 16
            x = a.x + np.uint64(row) * stride + np.uint64(128 * (i - i // columns * columns))
            at = np.uint64(tiles.BYTES) * np.uint64(i)
            make((x, stride, a.high + at, a.low + at), rows - row)

    return run
