"""Panels: ROWS rows of a weight unpacked side by side, in the thread's private memory.

Four consecutive columns of each row make one 32-bit lane, so one int8 dot product advances all rows of a register by
four columns. Beside the codes stand, for each group of columns, a line of scales and one of biases, and for each 32
columns one of sums (of the weights without their biases: what the zero point of an activation is multiplied with).
Float weights become float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...args import OCT, ROW_SPACE
from ...features import target
from ...jit import device
from ...simd.dot import sum_fours
from ...simd.emit import I32, Emitter, Vec
from ...simd.tiles import transposed
from ...simd.types import address, emitted
from .act import OFFSET
from .floats import FloatType
from .weights import SUPER, WeightType

LANES = target().isa.lanes
REGISTERS = target().isa.gemm_tile[0]
ROWS = LANES * REGISTERS  # rows of a panel; a multiple of OCT


def offset_of(kind: type[WeightType]) -> int:
    """The zero point of codes in a product, a power of two: a type's own, or the middle of its codes.

    Counted from the middle, little is left of biases and sums, and what is small loses little by rounding (terms.py).
    """
    return kind.offset if kind.offset is not None else 1 << kind.bits - 1


def _panel_codes(kind: type[WeightType], codes: Vec) -> Vec:
    """Codes as panels hold them: with the common offset, where there is one."""
    return codes + (OFFSET - offset_of(kind)) if OFFSET is not None else codes


@emitted(types.void, address, types.int64)
def ask_for(e: Emitter, at: Vec, lines: Vec) -> None:
    """Ask for cache lines of the next panel's weights, while this one is multiplied.

    Its rows are read a few columns at a time, so the hardware does not see them coming. The smaller weights
    of other types gain nothing.
    """

    def body(i: ir.Value, _: list[Vec]) -> list[Vec]:
        e.prefetch(e.index(at.ll, i, 64), 0)
        return []

    e.loop(lines.ll, [], body)


def _store_groups(e: Emitter, values: Vec, count: int, at: ir.Value) -> None:
    """Lane g of a row's scales goes to line g of the panel's scales, for so many groups."""
    for g in range(count):
        e.store(values.lane(g), at, 4 * ROWS * g)


def _sums_of_four(e: Emitter, kind: type[WeightType], codes: Vec) -> Vec:
    """The sum over each four columns of (code - offset), as int32."""
    return sum_fours(e, e.zero(I32, codes.n // 4), codes) - 4 * offset_of(kind)


def _mean_weights(e: Emitter, kind: type[WeightType], codes: Sequence[Vec], scale: Vec) -> Vec:
    """The mean over each 32 columns of the weights without their biases. The zero point of an activation is that of 32
    columns, so it is multiplied with one number also where they are two groups.
    """
    fours, lanes = [_sums_of_four(e, kind, c) for c in codes], kind.group // 4
    sums = [e.sum(four.take(range(g, g + lanes))) for four in fours for g in range(0, four.n, lanes)]
    totals = e.to_float(e.gather(sums)) * (scale.take(range(len(sums))) * (1.0 / 32))
    if kind.group == 32:
        return totals
    return totals.take(range(0, totals.n, 2)) + totals.take(range(1, totals.n, 2))


def _to_row(kind: type[WeightType], columns: int) -> Any:
    """f(w, row, scales, biases, sums): so many columns of one row at `w`, 256 or a block. Codes go to `row` in their
    order, scale, bias and sum of each group into the panel.
    """
    unpack, groups = kind.unpack if columns == SUPER else kind.unpack_block, columns // kind.group

    @emitted(types.void, address, address, address, address, address)
    def to_row(e: Emitter, w: Vec, row: Vec, scales: Vec, biases: Vec, sums: Vec) -> None:
        u = unpack(e, w.ll)
        for j, codes in enumerate(u.codes):
            e.store(_panel_codes(kind, codes), row.ll, 64 * j)
        _store_groups(e, u.scale, groups, scales.ll)
        _store_groups(e, _mean_weights(e, kind, u.codes, u.scale), columns // 32, sums.ll)
        if u.bias is not None:
            _store_groups(e, e.fma(u.scale, e.like(u.scale, offset_of(kind)), u.bias), groups, biases.ll)

    return to_row


@emitted(types.void, address, address)
def _transpose8(e: Emitter, rows: Vec, panel: Vec) -> None:
    """32 columns of 8 rows (ROW_SPACE bytes apart) into 8 lines of the panel (4 * ROWS bytes apart)."""
    codes = [e.load(I32, 8, rows.ll, ROW_SPACE * r) for r in range(8)]
    for k, line in enumerate(transposed(codes)):
        e.store(line, panel.ll, 4 * ROWS * k)


def panel_unpacker(kind: type[WeightType]) -> Any:
    """f(first row address, row_bytes, last usable row, cols, places, row buffer): fill a panel."""
    super_to_row, has_tail = _to_row(kind, SUPER), kind.block < SUPER
    block_to_row = _to_row(kind, kind.block) if has_tail else super_to_row
    super_bytes, block_bytes = kind.super_bytes(), kind.block_bytes
    groups, per_super = SUPER // kind.group, SUPER // kind.block
    block_groups, thirty_twos = kind.block // kind.group, kind.block // 32
    line = np.uint64(4 * ROWS)

    @device
    def unpack(w, row_bytes, last, cols, places, rows):  # type: ignore[no-untyped-def]
        panel, scales, biases, sums = places[0], places[1], places[2], places[3]
        supers = cols // 256
        whole = supers * per_super
        blocks = cols // (32 * thirty_twos) if has_tail else whole
        for oct in range(0, ROWS, OCT):
            for i in range(supers):
                g, block = np.uint64(i * groups) * line, np.uint64(i * 8) * line
                for r in range(OCT):
                    # Rows past the end of the matrix repeat the last one; their results are never stored.
                    row = w + np.uint64(min(oct + r, last) * row_bytes + i * super_bytes)
                    here = np.uint64(4 * (oct + r))
                    to = rows + np.uint64(ROW_SPACE * r)
                    super_to_row(row, to, scales + g + here, biases + g + here, sums + block + here)
                for c in range(8):
                    k = np.uint64(i * 64 + c * 8)
                    _transpose8(rows + np.uint64(32 * c), panel + k * line + np.uint64(4 * oct))
            for i in range(whole, blocks):
                g, first = np.uint64(i * block_groups) * line, np.uint64(i * thirty_twos) * line
                for r in range(OCT):
                    row = w + np.uint64(min(oct + r, last) * row_bytes + i * block_bytes)
                    here, to = np.uint64(4 * (oct + r)), rows + np.uint64(ROW_SPACE * r)
                    block_to_row(row, to, scales + g + here, biases + g + here, sums + first + here)
                for c in range(thirty_twos):
                    k = np.uint64(8) * (np.uint64(i * thirty_twos) + np.uint64(c))
                    _transpose8(rows + np.uint64(32 * c), panel + k * line + np.uint64(4 * oct))

    return unpack


def float_unpacker(kind: type[FloatType]) -> Any:
    size = kind.size

    @emitted(types.void, types.UniTuple(address, OCT), address)
    def widen8(e: Emitter, rows: Vec, place: Vec) -> None:
        """8 columns of 8 rows."""
        values = [kind.load(e, e.b.extract_value(rows.ll, r), 8) for r in range(OCT)]
        for k, line in enumerate(transposed(values)):
            e.store(line, place.ll, 4 * ROWS * k)

    @emitted(types.void, address, address)
    def widen(e: Emitter, w: Vec, place: Vec) -> None:
        e.store(kind.load(e, w.ll, 1).lane(0), place.ll)

    @device
    def unpack(w, row_bytes, last, cols, places, rows):  # type: ignore[no-untyped-def]
        panel, whole = places[0], cols // 8 * 8
        for oct in range(0, ROWS, OCT):
            # Rows past the end of the matrix repeat the last one; their results are never stored.
            first = (
                w + np.uint64(min(oct, last) * row_bytes), w + np.uint64(min(oct + 1, last) * row_bytes),
                w + np.uint64(min(oct + 2, last) * row_bytes), w + np.uint64(min(oct + 3, last) * row_bytes),
                w + np.uint64(min(oct + 4, last) * row_bytes), w + np.uint64(min(oct + 5, last) * row_bytes),
                w + np.uint64(min(oct + 6, last) * row_bytes), w + np.uint64(min(oct + 7, last) * row_bytes),
            )  # fmt: skip
            for k in range(0, whole, 8):
                at = np.uint64(k * size)
                here = (
                    first[0] + at, first[1] + at, first[2] + at, first[3] + at, first[4] + at, first[5] + at,
                    first[6] + at, first[7] + at,
                )  # fmt: skip
                widen8(here, panel + np.uint64(4 * (k * ROWS + oct)))
            for k in range(whole, cols):
                for r in range(OCT):
                    row = w + np.uint64(min(oct + r, last) * row_bytes)
                    widen(row + np.uint64(k * size), panel + np.uint64(4 * (k * ROWS + oct + r)))

    return unpack
