"""Rotary position embedding.

The sines and cosines of a token are computed once, into the thread's private memory, and used for all heads. The angle
is the float32 product of position and frequency, as in every trained model's code; its reduction is done in float64.
"""

from __future__ import annotations

import numpy as np
from numba.core import types

from ..jit import device, kernel
from ..simd import math
from ..simd.emit import F32, Emitter, Vec
from ..simd.table import f32_view, i32_view, load, store, swap_pairs
from ..simd.types import address, emitted
from .share import share

_THREE = types.UniTuple(address, 3)  # frequencies, cosines, sines


def _rotation(e: Emitter, places: Vec, position: Vec, mscale: Vec) -> tuple[Vec, Vec]:
    angle = e.load(F32, 16, e.b.extract_value(places.ll, 0)) * position
    sine, cosine = math.sincos(e, angle)
    return sine * mscale, cosine * mscale


@emitted(types.void, _THREE, types.float32, types.float32)
def _sixteen(e: Emitter, places: Vec, position: Vec, mscale: Vec) -> None:
    """Cosines and sines of 16 angles."""
    sine, cosine = _rotation(e, places, position, mscale)
    e.store(cosine, e.b.extract_value(places.ll, 1))
    e.store(sine, e.b.extract_value(places.ll, 2))


@emitted(types.void, _THREE, types.float32, types.float32)
def _sixteen_doubled(e: Emitter, places: Vec, position: Vec, mscale: Vec) -> None:
    """The same for neighbours: (cos, cos) and (-sin, sin) of each angle, 32 numbers of each."""
    sine, cosine = _rotation(e, places, position, mscale)
    minus = -sine
    for half in (0, 1):
        lanes = range(8 * half, 8 * half + 8)
        e.store(cosine.take([i for lane in lanes for i in (lane, lane)]), e.b.extract_value(places.ll, 1), 64 * half)
        signed = e.shuffle(minus, sine, [i for lane in lanes for i in (lane, lane + 16)])
        e.store(signed, e.b.extract_value(places.ll, 2), 64 * half)


@device
def _rotate_neighbours(x, out, cosine, sine, n_rot):  # type: ignore[no-untyped-def]
    """Pairs (2i, 2i + 1): out = x * (cos, cos) + (second, first) * (-sin, sin)."""
    whole = n_rot // 16 * 16
    for i in range(0, whole, 16):
        at = np.uint64(4 * i)
        v = load(x + at)
        store(out + at, v * load(cosine + at) + swap_pairs(v) * load(sine + at))
    source, result, c, s = f32_view(x, n_rot), f32_view(out, n_rot), f32_view(cosine, n_rot), f32_view(sine, n_rot)
    for i in range(whole, n_rot, 2):
        first, second = source[i], source[i + 1]
        result[i] = first * c[i] + second * s[i]
        result[i + 1] = second * c[i + 1] + first * s[i + 1]


@device
def _rotate_halves(x, out, cosine, sine, n_rot):  # type: ignore[no-untyped-def]
    """Pairs (i, i + n_rot / 2)."""
    half = n_rot // 2
    whole, far = half // 16 * 16, np.uint64(4 * half)
    for i in range(0, whole, 16):
        at = np.uint64(4 * i)
        first, second = load(x + at), load(x + at + far)
        c, s = load(cosine + at), load(sine + at)
        store(out + at, first * c - second * s)
        store(out + at + far, first * s + second * c)
    source, result, c1, s1 = f32_view(x, n_rot), f32_view(out, n_rot), f32_view(cosine, half), f32_view(sine, half)
    for i in range(whole, half):
        one, two = source[i], source[i + half]
        result[i] = one * c1[i] - two * s1[i]
        result[i + half] = one * s1[i] + two * c1[i]


@kernel("rope")
def rope(a, step, tid, nth):  # type: ignore[no-untyped-def]
    """Rotate the first n_rot dims of each head by position * inv_freq, times mscale; the rest is copied. out may be x.

    Threads take ranges of (token, head).
    """
    pairs = a.n_rot // 2
    padded = (pairs + 15) // 16 * 16
    # Private memory: frequencies (padded to whole vectors), cosines, sines.
    scratch = (step.scratch + np.uint64(tid * step.scratch_bytes + 63)) // np.uint64(64) * np.uint64(64)
    cosine = scratch + np.uint64(4 * padded)
    sine = cosine + np.uint64(8 * padded)
    frequency, given = f32_view(scratch, padded), f32_view(a.inv_freq, pairs)
    for i in range(padded):
        frequency[i] = given[i] if i < pairs else np.float32(0.0)
    positions = i32_view(step.positions, step.n_tokens)
    start, stop = share(step.n_tokens * a.n_head, 1, tid, nth)
    current = np.int64(-1)
    for item in range(start, stop):
        t = item // a.n_head
        if t != current:
            current = t
            position = np.float32(positions[t])
            for i in range(0, padded, 16):
                at = np.uint64(4 * i)
                if a.neox != 0:
                    _sixteen((scratch + at, cosine + at, sine + at), position, a.mscale)
                else:
                    two = np.uint64(8 * i)
                    _sixteen_doubled((scratch + at, cosine + two, sine + two), position, a.mscale)
        x = a.x + np.uint64(4 * item * a.head_dim)
        out = a.out + np.uint64(4 * item * a.head_dim)
        if a.neox != 0:
            _rotate_halves(x, out, cosine, sine, a.n_rot)
        else:
            _rotate_neighbours(x, out, cosine, sine, a.n_rot)
        source, result = f32_view(x, a.head_dim), f32_view(out, a.head_dim)
        for i in range(a.n_rot, a.head_dim):
            result[i] = source[i]
