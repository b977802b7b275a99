"""Few tokens: the file is read once, in order, and each row is multiplied with all of them (dots.py, float_dots.py)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ...args import PACKET_BYTES, PRODUCTS_AT, ROWS_AT_ONCE, SEVERAL, SUMS_BYTES, TAIL_BYTES
from ...jit import Kernel, device, inlined, kernel_family
from ...simd.table import byte_view, f32_view, plus
from ..share import chunk_of, is_few, next_chunk, rows_of
from .dots import quantized_parts, quantized_rows
from .float_dots import float_parts, float_rows
from .part import PART, SIZES
from .table import FLOATS, QUANTIZED


@device
def products_at(scratch, row):  # type: ignore[no-untyped-def]
    """Where `dots_of` leaves the products of one of its rows."""
    return scratch + np.uint64(TAIL_BYTES + row * SUMS_BYTES + PRODUCTS_AT)


@device
def at_once(rows, cols):  # type: ignore[no-untyped-def]
    """Rows that a product takes together: those before the last are read as if the next began where they end, 256
    columns from their last whole 256 on, so the next has to be that long.
    """
    return rows if cols >= 256 else np.int64(1)


def one_of(name: str) -> Any:
    """f(w, row_bytes, rows, cols, end, x, scratch): up to ROWS_AT_ONCE rows of weights of a type, with one token.

    `end` is the end of the matrix. `products_at(scratch, r)` is where the product of row r is, float32.
    """
    tail_from, has_rest = tail_of(name), name in QUANTIZED and QUANTIZED[name].block < 256
    if name in FLOATS:
        whole = ending = float_rows(FLOATS[name])
    else:  # two products: a branch in each row slows reading from memory, though it always goes the same way
        whole, ending = (quantized_rows(QUANTIZED[name], are_whole=are_whole) for are_whole in (True, False))

    @inlined
    def one(w, row_bytes, rows, cols, end, x, scratch):  # type: ignore[no-untyped-def]
        some = at_once(rows, cols)
        for r in range(0, rows, some):
            first, sums = w + np.uint64(r * row_bytes), scratch + np.uint64(TAIL_BYTES + r * SUMS_BYTES)
            if has_rest:  # noqa: SIM102 - Numba leaves out what a constant alone decides
                if cols % 256 != 0:
                    tail = tail_from(first + np.uint64((some - 1) * row_bytes), cols, end, scratch)
                    ending(first, row_bytes, some, tail, cols, x, sums)
                    continue
            whole(first, row_bytes, some, first, cols, x, sums)

    return one


def dots_of(name: str) -> Any:
    """f(w, row_bytes, rows, cols, end, x, tokens, scratch): the same with up to SEVERAL tokens, a product for each."""
    two, four, eight = (
        quantized_parts(QUANTIZED[name], n) if name in QUANTIZED else float_parts(FLOATS[name], n) for n in SIZES
    )
    one, tail_from = one_of(name), tail_of(name)

    @inlined
    def dots(w, row_bytes, rows, cols, end, x, tokens, scratch):  # type: ignore[no-untyped-def]
        if tokens == 1:
            one(w, row_bytes, rows, cols, end, x, scratch)
            return
        some, part = at_once(rows, cols), np.int64(0)
        while True:
            for r in range(0, rows, some):
                first, sums = w + np.uint64(r * row_bytes), scratch + np.uint64(TAIL_BYTES + r * SUMS_BYTES)
                tail = tail_from(first + np.uint64((some - 1) * row_bytes), cols, end, scratch)
                if tokens <= 2:
                    two(first, row_bytes, some, tail, cols, x, sums, part, tokens)
                elif tokens <= 4:
                    four(first, row_bytes, some, tail, cols, x, sums, part, tokens)
                else:
                    eight(first, row_bytes, some, tail, cols, x, sums, part, tokens)
            part += PART
            if part >= cols // 256:
                break

    return dots


def stride_of(name: str) -> Any:
    """f(cols) -> bytes from one row of activations to the next, int64."""
    is_float = name in FLOATS

    @device
    def stride(cols):  # type: ignore[no-untyped-def]
        return np.int64(4 * cols) if is_float else (cols + 255) // 256 * PACKET_BYTES

    return stride


@functools.cache  # kernels that use it twice compile it once
def tail_of(name: str) -> Any:
    """f(row address, cols, end of the matrix, scratch) -> where the blocks after the last whole 256 columns are.

    They are copied to `scratch` when 256 columns from there would go beyond the end.
    """
    if name in FLOATS or QUANTIZED[name].block == 256:

        @device
        def none(w, cols, end, scratch):  # type: ignore[no-untyped-def]
            return w

        return none
    block, block_bytes = QUANTIZED[name].block, QUANTIZED[name].block_bytes
    super_bytes = np.uint64(QUANTIZED[name].super_bytes())
    assert super_bytes <= TAIL_BYTES

    @device
    def tail(w, cols, end, scratch):  # type: ignore[no-untyped-def]
        at = w + np.uint64(cols // 256) * super_bytes
        if cols % 256 == 0 or at + super_bytes <= end:
            return at
        n = cols % 256 // block * block_bytes
        source, copy = byte_view(at, n), byte_view(scratch, n)
        for i in range(n):
            copy[i] = source[i]
        return scratch

    return tail


@kernel_family("linear_rows")
def linear_rows(name: str) -> Kernel:
    """out[t, r] = residual[t, r] + (x[t] . w[r] + bias[r]) for all tokens; each thread reads consecutive rows."""
    dots, stride_from = dots_of(name), stride_of(name)

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        tokens = rows_of(a, step)
        if not is_few(tokens, a, step):
            return
        stride, end = stride_from(a.cols), a.w + np.uint64(a.n * a.row_bytes)
        scratch = step.scratch + np.uint64(tid * step.scratch_bytes)
        out, residual = f32_view(a.out, tokens * a.n), f32_view(a.residual, tokens * a.n)
        bias = f32_view(a.bias, a.n)
        chunk, turn = chunk_of(a.n, a.row_bytes, nth), np.int64(0)
        while True:
            start, stop, turn = next_chunk(a.queue, a.n, chunk, turn, tid, nth)
            if start == stop:
                break
            for r0 in range(start, stop, ROWS_AT_ONCE):
                w, rows = a.w + np.uint64(r0 * a.row_bytes), min(ROWS_AT_ONCE, stop - r0)
                for first in range(0, tokens, SEVERAL):
                    some, x = min(SEVERAL, tokens - first), a.x + np.uint64(first * stride)
                    dots(w, a.row_bytes, rows, a.cols, end, x, some, scratch)
                    for r in range(rows):
                        add = bias[r0 + r] if a.bias != 0 else np.float32(0.0)
                        products = f32_view(products_at(scratch, r), some)
                        for t in range(some):
                            value, i = plus(products[t], add), (first + t) * a.n + r0 + r
                            out[i] = plus(residual[i], value) if a.residual != 0 else value

    return run
