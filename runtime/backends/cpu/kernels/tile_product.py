"""Products of tiles: up to 2 x 2 tiles of sums in registers, over any number of tiles of the inner dimension.

Both operands lie in tiles of bfloat16 that follow each other along the inner dimension: the left one holds rows, the
right one pairs of rows (see simd/tiles.py). Where 8 significant bits are too few, an operand has a second plane of low
parts, and the product is the sum of passes over (left part, right part).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from ..simd import tiles
from ..simd.emit import I64, Emitter, Vec
from ..simd.types import address, emitted

_LEFT, _RIGHT = (4, 5), (6, 7)  # tile registers; 0 to 3 are sums

Passes = tuple[tuple[int, int], ...]
ONE_PASS: Passes = ((0, 0),)
EXACT_RIGHT: Passes = ((0, 0), (0, 1))  # the left operand is bfloat16 itself
EXACT: Passes = ((0, 0), (0, 1), (1, 0))  # 16 significant bits; the product of the low parts is below them

operands = types.UniTuple(address, 2)


def tile_product(rows: int, columns: int, passes: Passes) -> Any:
    """f(left, right, sums, strides, count, fresh): sums [rows, columns] += left [rows, count] x right [count, columns].

    left, right: addresses of the high and the low part of the first tile
    strides: bytes from a tile to the one below it on the left, beside it on the right; below and beside it in the sums
    count: tiles of the inner dimension; fresh: sums start at zero
    """

    @emitted(types.void, operands, operands, address, types.UniTuple(types.int64, 4), types.int64, types.int64)
    def product(e: Emitter, left: Vec, right: Vec, sums: Vec, strides: Vec, count: Vec, fresh: Vec) -> None:
        parts = [[e.b.extract_value(v.ll, i) for i in range(2)] for v in (left, right)]
        down, beside, sums_down, sums_beside = (e.b.extract_value(strides.ll, i) for i in range(4))

        def step(at: ir.Value, stride: ir.Value, n: int) -> ir.Value:
            return e.b.add(at, e.b.mul(stride, ir.Constant(I64, n))) if n else at

        cells = [
            (r, c, 2 * r + c, step(step(sums.ll, sums_down, r), sums_beside, c))
            for r in range(rows)
            for c in range(columns)
        ]
        with e.b.if_else(e.b.icmp_signed("!=", fresh.ll, ir.Constant(I64, 0))) as (new, old):
            with new:
                for _, _, tile, _ in cells:
                    tiles.clear(e, tile)
            with old:
                for _, _, tile, at in cells:
                    tiles.load(e, tile, at)

        def body(i: ir.Value, _: list[Vec]) -> list[Vec]:
            for left_part, right_part in passes:
                for r in range(rows):
                    tiles.load(e, _LEFT[r], e.index(step(parts[0][left_part], down, r), i, tiles.BYTES))
                for c in range(columns):
                    tiles.load(e, _RIGHT[c], e.index(step(parts[1][right_part], beside, c), i, tiles.BYTES))
                for r, c, tile, _ in cells:
                    tiles.multiply(e, tile, _LEFT[r], _RIGHT[c])
            return []

        e.loop(count.ll, [], body)
        for _, _, tile, at in cells:
            tiles.store(e, tile, at)

    return product
