"""Operations that treat every element alike. Threads take ranges of the flattened matrix, whole vectors each."""

from __future__ import annotations

import numpy as np

from ..jit import Kernel, device, kernel, kernel_family
from ..simd import table
from ..simd.table import f32_view, load, splat, store, tanh, times
from .share import rows_of, share


@kernel("add")
def add(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """out = x + y"""
    n = rows_of(a, step) * a.cols
    start, stop = share(n, 64, tid, nth)
    x, y, out = f32_view(a.x, n), f32_view(a.y, n), f32_view(a.out, n)
    for i in range(start, stop):
        out[i] = x[i] + y[i]


@kernel("scale")
def scale(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """out = x * factor"""
    n = rows_of(a, step) * a.cols
    start, stop = share(n, 64, tid, nth)
    x, out = f32_view(a.x, n), f32_view(a.out, n)
    for i in range(start, stop):
        out[i] = x[i] * a.factor


@device
def _single(at):  # type: ignore[no-untyped-def]
    """One element in all lanes: the tail of a range goes through the same vector function."""
    return splat(f32_view(at, 1)[0])


@device
def _put(at, vector):  # type: ignore[no-untyped-def]
    f32_view(at, 1)[0] = table.max_of(vector)


@kernel_family("glu")
def glu(act: str) -> Kernel:
    """out = act(gate) * up"""
    function = getattr(table, act)

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        start, stop = share(rows_of(a, step) * a.cols, 64, tid, nth)
        whole = start + (stop - start) // 16 * 16
        for i in range(start, whole, 16):
            at = np.uint64(4 * i)
            store(a.out + at, times(function(load(a.gate + at)), load(a.up + at)))
        for i in range(whole, stop):
            at = np.uint64(4 * i)
            _put(a.out + at, times(function(_single(a.gate + at)), _single(a.up + at)))

    return run


@kernel_family("activation")
def activation(act: str) -> Kernel:
    """out = act(x)"""
    function = getattr(table, act)

    def run(a, step, tid, nth):  # type: ignore[no-untyped-def]
        start, stop = share(rows_of(a, step) * a.cols, 64, tid, nth)
        whole = start + (stop - start) // 16 * 16
        for i in range(start, whole, 16):
            at = np.uint64(4 * i)
            store(a.out + at, function(load(a.x + at)))
        for i in range(whole, stop):
            at = np.uint64(4 * i)
            _put(a.out + at, function(_single(a.x + at)))

    return run


@kernel("softcap")
def softcap(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """out = cap * tanh(x / cap)"""
    start, stop = share(rows_of(a, step) * a.cols, 64, tid, nth)
    whole = start + (stop - start) // 16 * 16
    cap, inverse = splat(a.cap), splat(np.float32(1.0) / a.cap)
    for i in range(start, whole, 16):
        at = np.uint64(4 * i)
        store(a.out + at, tanh(load(a.x + at) * inverse) * cap)
    for i in range(whole, stop):
        at = np.uint64(4 * i)
        _put(a.out + at, tanh(_single(a.x + at) * inverse) * cap)
