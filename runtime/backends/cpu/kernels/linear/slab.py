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
from ...simd.emit import I32, Emitter, Vec
from ...simd.types import address, emitted
from .blocks import Block32, single_block
from .table import FLOATS, QUANTIZED
from .weights import WeightType

MOST_COLS = 2 * SLAB_COLS  # the last slab of a row may be almost twice as wide as the others
ROW_TILE_BYTES = tiles.BYTES * (MOST_COLS // 32)  # 16 rows
PLANE_BYTES = ROW_TILE_BYTES * (SLAB_ROWS // 16)
SLAB_BYTES = 2 * PLANE_BYTES
_AHEAD = 8  # rows: the columns of a slab are pieces of rows, which no prefetcher sees coming


def _super_to_lines(kind: type[WeightType]) -> Any:
    n_bytes = 256 // kind.block * kind.block_bytes

    @emitted(types.void, address, address, address)
    def unpack(e: Emitter, w: Vec, line: Vec, later: Vec) -> None:
        """256 columns of one row at `w` into the lines of eight tiles from `line` on; prefetches `later`."""
        for i in range(0, n_bytes, 64):
            e.prefetch(later.ll, i)
        u = kind.unpack(e, w.ll)
        bias = kind.bias_of(e, u.scale, u.bias)
        for k in range(8):
            halves = []
            for half in (0, 1):
                first = 32 * (k % 2) + 16 * half
                codes = e.widen_unsigned(u.codes[k // 2].take(range(first, first + 16)), I32)
                group = [(32 * k + 16 * half) // kind.group] * 16
                halves.append(e.fma(e.to_float(codes), u.scale.take(group), bias.take(group)))
            e.store(tiles.brain_pairs(e, *halves), line.ll, tiles.BYTES * k)

    return unpack


def _block_to_line(kind: type[Block32]) -> Any:
    @emitted(types.void, address, address)
    def unpack(e: Emitter, w: Vec, line: Vec) -> None:
        """The same for one block of 32 columns."""
        codes, scale, bias = single_block(kind, e, w.ll)
        scales, biases = (e.splat(v.lane(0), 32) for v in (scale, bias))
        values = e.fma(e.to_float(e.widen_unsigned(codes, I32)), scales, biases)
        e.store(tiles.brain_pairs(e, values.take(range(16)), values.take(range(16, 32))), line.ll)

    return unpack


def slab_unpacker(name: str) -> Any:
    """f(first row, row_bytes, rows, first K tile, K tiles, slab): rows up to a multiple of 32 repeat the last one.

    Results of the repeated rows are never stored.
    """
    if name in FLOATS:
        return _float_slab_unpacker(name)
    kind = QUANTIZED[name]
    super_to_lines, has_tail = _super_to_lines(kind), issubclass(kind, Block32)
    block_to_line = _block_to_line(kind) if has_tail else super_to_lines
    super_bytes, block_bytes = 256 // kind.block * kind.block_bytes, kind.block_bytes

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
                for i in range(count // 8 * 8, count):
                    block_to_line(row + np.uint64(i * block_bytes), line + np.uint64(i * tiles.BYTES))

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
