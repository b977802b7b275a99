"""Activations as int8 in packets of 256 columns: what a product of rows reads.

A packet is laid out for registers of 16 lanes, of which lanes 2 g and 2 g + 1 belong to the g-th 32 columns. Its codes
are four vectors of 64 bytes, and vector m has the m-th eight of each 32 columns: column 32 g + 8 m + 4 j + b is byte
4 (2 g + j) + b of vector m. So the four dot products of a lane add up in int32 and are scaled once. A lane's 16 columns
have a scale of their own and no zero point, which would cost every product a multiply-add and every row of weights its
sums. A packet at the end of a row is filled up with zeros.
"""

from __future__ import annotations

import numpy as np
from numba.core import types

from ...args import PACKET_BYTES, PACKET_PARTS
from ...jit import device, kernel
from ...simd.emit import F32, I8, I32, Emitter, Vec
from ...simd.table import load, splat, store, times
from ...simd.types import address, emitted
from ..norm import rms_factor
from ..share import rows_of, share
from .act import GRAIN

# The largest magnitude of 16 columns becomes the first of these codes, or the second where their errors are less then.
MOST, SECOND = 127, 121


def _scaled(x: Vec, most: Vec, code: int) -> tuple[Vec, Vec, Vec]:
    """Codes (int32), the scale that makes `code` of the largest magnitude, and the sum of squared errors."""
    e = x.e
    scale = most * (1.0 / code)
    is_zero = Vec(e, e.b.fcmp_ordered("==", most.ll, e.scalar(F32, 0.0).ll))
    inverse = e.select(is_zero, e.scalar(F32, 0.0), e.scalar(F32, float(code)) / most)
    codes = e.round_even(x * inverse)
    off = x - e.to_float(codes) * scale
    return codes, scale, e.sum(off * off)


def _int8_of(x: Vec) -> tuple[Vec, Vec]:
    """Codes (int32) of 16 float32, and the scale that they share: the better of two."""
    e = x.e
    most = e.largest(e.absolute(x))
    (codes, scale, error), (others, other, less) = (_scaled(x, most, code) for code in (MOST, SECOND))
    is_better = Vec(e, e.b.fcmp_ordered("<", less.ll, error.ll))
    return e.select(is_better, others, codes), e.select(is_better, other, scale)


def _as_float(e: Emitter, value: Vec) -> Vec:
    return Vec(e, e.b.sitofp(value.ll, F32))


@emitted(types.void, address, address)
def _quantize32(e: Emitter, x_at: Vec, at: Vec) -> None:
    """32 float32 to a group of a packet; `at`: the packet's address, and eight bytes on for each group before."""
    x = [e.load(F32, 16, x_at.ll, 64 * i) for i in (0, 1)]
    lanes = []
    for j in (0, 1):
        columns = [8 * m + 4 * j + b for m in range(4) for b in range(4)]
        codes, scale = _int8_of(e.shuffle(*x, columns))
        lanes.append(e.bitcast(e.truncate(codes, I8), I32, 4))
        total, first = e.sum(codes), e.sum(codes.take(range(8)))
        parts = {"scale": scale, "sum": _as_float(e, total) * scale, "neg": -total, "neg_first": -first}
        for name, value in parts.items():
            e.store(value, at.ll, PACKET_PARTS[name] + 4 * j)
    for m in range(4):
        e.store(e.shuffle(*lanes, [m, 4 + m]), at.ll, PACKET_PARTS["codes"] + 64 * m)


@emitted(types.void, address)
def _clear32(e: Emitter, at: Vec) -> None:
    """A group of a packet that has no columns."""
    for offset in [PACKET_PARTS["codes"] + 64 * m for m in range(1, 4)] + list(PACKET_PARTS.values()):
        e.store(e.zero(I32, 2), at.ll, offset)


@device
def quantize_at(x, group, per_row, packets):  # type: ignore[no-untyped-def]
    """32 float32 at address x to a group of the packets of rows of `per_row` groups, counted over all rows."""
    row, last = group // per_row, per_row - 1
    g = group - row * per_row
    packet = packets + np.uint64((row * ((per_row + 7) // 8) + g // 8) * PACKET_BYTES)
    _quantize32(x, packet + np.uint64(8 * (g % 8)))
    if g == last:
        for missing in range(g % 8 + 1, 8):
            _clear32(packet + np.uint64(8 * missing))


@kernel("quantize_packets")
def quantize_packets(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """Each group of 32 on its own. Columns are a multiple of 32."""
    per_row = a.cols // 32
    start, stop = share(rows_of(a, step) * per_row, GRAIN, tid, nth)
    for i in range(start, stop):
        quantize_at(a.x + np.uint64(128 * i), i, per_row, a.packets)


@kernel("rms_norm_quantize")
def rms_norm_quantize(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """rms_norm and quantize without a barrier between: each thread sums the squares of the rows it has a part of. The
    sums that threads repeat cost less than the barrier that goes.

    out (float32) and weight may be absent (0).
    """
    per_row = a.cols // 32
    start, stop = share(rows_of(a, step) * per_row, GRAIN, tid, nth)
    own = step.scratch + np.uint64(tid * step.scratch_bytes)
    row = np.int64(-1)
    scale = splat(np.float32(0.0))
    for i in range(start, stop):
        if i // per_row != row:
            row = i // per_row
            scale = splat(rms_factor(a.x + np.uint64(4 * row * a.cols), a.cols, a.eps))
        out = own if a.out == 0 else a.out + np.uint64(128 * i)
        for half in range(2):
            at = np.uint64(64 * half)
            y = times(load(a.x + np.uint64(128 * i) + at), scale)
            if a.weight != 0:
                y = times(y, load(a.weight + np.uint64(128 * (i - row * per_row)) + at))
            store(out + at, y)
        quantize_at(out, i, per_row, a.packets)
