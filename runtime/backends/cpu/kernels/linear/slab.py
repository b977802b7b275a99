"""Slabs: some columns of many rows of a weight as bfloat16, in the tiles that linear_tiles multiplies.

Tile (i, k) holds 16 rows and 32 columns, a row in each line. What a type has beyond 8 significant bits goes into a
second plane of tiles, the low parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from ...args import SLAB_COLS, SLAB_ROWS
from ...jit import device
from ...simd import tiles
from ...simd.emit import Emitter, Vec
from ...simd.types import address, emitted
from .table import FLOATS, QUANTIZED
from .weights import SUPER, WeightType

MOST_COLS = 2 * SLAB_COLS  # the last slab of a row may be almost twice as wide as the others
ROW_TILE_BYTES = tiles.BYTES * (MOST_COLS // 32)  # 16 rows
PLANE_BYTES = ROW_TILE_BYTES * (SLAB_ROWS // 16)
SLAB_BYTES = 2 * PLANE_BYTES
_AHEAD = 8  # rows: the columns of a slab are pieces of rows, which no prefetcher sees coming


def _to_lines(kind: type[WeightType], columns: int) -> Any:
    """f(w, line, later): so many columns of one row at `w`, 256 or a block, into a line of each tile from `line` on."""
    n_bytes = columns // kind.block * kind.block_bytes

    @emitted(types.void, address, address, address)
    def to_lines(e: Emitter, w: Vec, line: Vec, later: Vec) -> None:
        for i in range(0, n_bytes, 64):
            e.prefetch(later.ll, i)
        values = kind.floats(e, w.ll, columns)
        for k, halves in enumerate(zip(values[::2], values[1::2], strict=True)):
            e.store(tiles.brain_pairs(e, *halves), line.ll, tiles.BYTES * k)

    return to_lines


def slab_unpacker(name: str) -> Any:
    """f(first row, row_bytes, rows, first K tile, K tiles, slab): rows up to a multiple of 32 repeat the last one.

    Results of the repeated rows are never stored.
    """
    if name in FLOATS:
        return _float_slab_unpacker(name)
    kind = QUANTIZED[name]
    super_to_lines, has_tail = _to_lines(kind, SUPER), kind.block < SUPER
    block_to_lines = _to_lines(kind, kind.block) if has_tail else super_to_lines
    super_bytes, block_bytes, per = kind.super_bytes(), kind.block_bytes, kind.block // 32

    @device
    def unpack(w, row_bytes, rows, k0, count, slab):  # type: ignore[no-untyped-def]
        offset = k0 // 8 * super_bytes
        for r in range((rows + 31) // 32 * 32):
            row = w + np.uint64(min(r, rows - 1) * row_bytes + offset)
            later = w + np.uint64(min(r + _AHEAD, rows - 1) * row_bytes + offset)
            line = slab + np.uint64(r // 16 * ROW_TILE_BYTES + r % 16 * tiles.LINE)
            for i in range(count // 8):
                at = np.uint64(i * super_bytes)
                super_to_lines(row + at, line + np.uint64(8 * i * tiles.BYTES), later + at)
            if has_tail:
                for i in range(count // 8 * 8, count, per):
                    at = np.uint64(i // per * block_bytes)
                    block_to_lines(row + at, line + np.uint64(i * tiles.BYTES), later + at)

    return unpack


def _float_slab_unpacker(name: str) -> Any:
    kind, exact = FLOATS[name], name != "BF16"

    @emitted(types.void, address, address)
    def to_line(e: Emitter, w: Vec, line: Vec) -> None:
        """32 columns of one row."""
        halves = [kind.load(e, e.at(w.ll, 16 * kind.size * i), 16) for i in (0, 1)]
        high = tiles.brain_pairs(e, *halves)
        e.store(high, line.ll)
        if exact:
            rounded = tiles.brain_value(e, high)
            low = tiles.brain_pairs(e, *(v - r for v, r in zip(halves, rounded, strict=True)))
            e.store(low, line.ll, PLANE_BYTES)

    @device
    def unpack(w, row_bytes, rows, k0, count, slab):  # type: ignore[no-untyped-def]
        for r in range((rows + 31) // 32 * 32):
            row = w + np.uint64(min(r, rows - 1) * row_bytes + 32 * kind_size * k0)
            line = slab + np.uint64(r // 16 * ROW_TILE_BYTES + r % 16 * tiles.LINE)
            for i in range(count):
                to_line(row + np.uint64(32 * kind_size * i), line + np.uint64(i * tiles.BYTES))

    kind_size = kind.size
    return unpack
