"""How ggml finds the scales of a group of weights: tries of several, and sums of weighted errors.

Everything is float32 and in ggml's order, since its files are to be equal byte for byte: sums run over a group from the
first weight to the last, and products from left to right. Groups are rows: x and errors' weights w are float32
[groups, size], scales float32 [groups, 1], codes int32 [groups, size].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from .codec import Floats

Ints = npt.NDArray[np.int32]

NOTHING = np.float32(1e-15)  # a group of no larger weights counts as zero
_MAGIC = np.float32(12582912)  # 1.5 * 2**23: a float32 that it is added to has no bits left for a fraction


def nearest(x: Floats) -> Ints:
    """The nearest integer, half to even, of numbers below 2**22; what ggml makes of others, too."""
    bits: Ints = (x + _MAGIC).view(np.int32) & np.int32(0x7FFFFF)
    bits -= np.int32(0x400000)
    return bits


def total(terms: Floats) -> Floats:
    """Sum of each row, one after the other as C adds them to 0, which makes a -0 of them 0: [n, size] -> [n, 1]."""
    found: Floats = _total_from_first(terms) + np.float32(0)
    return found


def _total_from_first(terms: Floats) -> Floats:
    """The same of terms that are added to the first of them: all -0 stay -0."""
    running: Floats = np.add.accumulate(terms, axis=1)
    return running[:, -1:]


def signed_extreme(x: Floats) -> Floats:
    """The value of largest magnitude with its sign; the first one of several: [n, size] -> [n, 1]."""
    extreme: Floats = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)
    extreme += np.float32(0)  # not -0: C begins with 0, and looks for something larger
    return extreme


def smallest(x: Floats) -> Floats:
    """The smallest value, the first one of several, since a zero may be -0: [n, size] -> [n, 1]."""
    least: Floats = np.take_along_axis(x, x.argmin(axis=1)[:, None], axis=1)
    return least


def symmetric(x: Floats, levels: int, w: Floats) -> tuple[Floats, Ints]:
    """Scales and codes 0 ... 2 * levels - 1, of which `levels` means zero; a group of zeros has codes 0 and scale 0."""
    top = signed_extreme(x)
    is_zero = np.abs(top) < NOTHING

    def fit(inverse: Floats) -> tuple[Ints, Floats, Floats]:
        codes = np.clip(nearest(inverse * x), -levels, levels - 1)
        return codes, *_moments(x, w, codes)

    codes, by_x, by_code = fit(np.float32(-levels) / top)
    scale: Floats = np.where(by_code != 0, by_x / by_code, np.float32(0))
    best = scale * by_x
    for step in [*range(-9, 0), *range(1, 10)]:
        other, by_x, by_code = fit(-(np.float32(levels) + np.float32(0.1) * np.float32(step)) / top)
        better = (by_code > 0) & (by_x * by_x > best * by_code)
        scale = np.where(better, by_x / by_code, scale)
        best = np.where(better, scale * by_x, best)
        codes = np.where(better, other, codes)
    return np.where(is_zero, np.float32(0), scale), np.where(is_zero, 0, codes + levels)


def symmetric_by_turns(x: Floats, levels: int) -> tuple[Floats, Ints]:
    """As `symmetric` with errors weighted by x * x, but from one scale on codes are changed one by one, five times."""
    top, w = signed_extreme(x), x * x
    codes = np.clip(nearest(np.float32(-levels) / top * x), -levels, levels - 1)
    turns = _Turns(x, w, codes.astype(np.int8), *_moments(x, w, codes))
    codes, by_x, by_code = turns.run(lambda new: np.clip(new, -levels, levels - 1), lambda _, after: after > 0)
    is_zero = np.abs(top) < NOTHING
    scale: Floats = np.where(by_code > 0, by_x / by_code, np.float32(0))
    return np.where(is_zero, np.float32(0), scale), np.where(is_zero, 0, codes + levels)


def positive(x: Floats, levels: int, w: Floats) -> tuple[Floats, Ints]:
    """Scales and codes 0 ... levels of numbers that are not negative: scales and minima of groups."""
    most = np.maximum(x.max(axis=1, keepdims=True), np.float32(0))

    def error(codes: Ints, scale: Floats) -> Floats:
        off = x - scale * codes.astype(np.float32)
        return total(w * off * off)

    inverse = np.float32(levels) / most
    best = error(nearest(inverse * x) & 255, np.float32(1) / inverse)
    for step in [*range(-4, 0), *range(1, 5)]:
        other = (np.float32(0.1) * np.float32(step) + np.float32(levels)) / most
        found = error(np.minimum(levels, nearest(other * x)), np.float32(1) / other)
        better = found < best
        inverse, best = np.where(better, other, inverse), np.where(better, found, best)
    codes = np.minimum(levels, nearest(inverse * x))
    turns = _Turns(x, w, codes.astype(np.uint8), *_moments(x, w, codes))
    codes, by_x, by_code = turns.run(lambda new: np.minimum(new, levels), lambda before, _: before > 0)
    is_zero = most < NOTHING
    scale: Floats = np.where(by_code > 0, by_x / by_code, np.float32(0))
    return np.where(is_zero, np.float32(0), scale), np.where(is_zero, 0, codes)


def affine(
    x: Floats, levels: int, w: Floats, tries: tuple[float, float, int], *, by_magnitude: bool = False
) -> tuple[Floats, Floats, Ints]:
    """Scales, minima (less than zero, without their sign) and codes 0 ... levels: x ~ scale * code - minimum.

    tries: the first number that is added to `levels`, the step to the next, and how many steps. The error of a weight
    is its square, or its magnitude.
    """
    least = smallest(x)
    least = np.where(least > 0, np.float32(0), least)
    most = x.max(axis=1, keepdims=True)
    is_flat = most <= least
    all_w, all_x = total(w), _total_from_first(w * x)

    def fit(inverse: Floats) -> Ints:
        return np.clip(nearest(inverse * (x - least)), 0, levels)

    def error(codes: Ints, scale: Floats, minimum: Floats) -> Floats:
        off = scale * codes.astype(np.float32) + minimum - x
        return total(w * (np.abs(off) if by_magnitude else off * off))

    inverse = np.float32(levels) / (most - least)
    scale: Floats = np.float32(1) / inverse
    codes = fit(inverse)
    best = error(codes, scale, least)
    for numerator in _numerators(levels, *tries):
        other = fit(numerator / (most - least))
        q = other.astype(np.float32)
        by_1, by_code, by_x = total(w * q), total(w * q * q), total(w * q * x)
        determinant = all_w * by_code - by_1 * by_1
        new_scale: Floats = np.divide(all_w * by_x - all_x * by_1, determinant)
        new_least: Floats = np.divide(by_code * all_x - by_1 * by_x, determinant)
        above = new_least > 0
        new_scale, new_least = np.where(above, by_x / by_code, new_scale), np.where(above, np.float32(0), new_least)
        found = error(other, new_scale, new_least)
        better = (determinant > 0) & (found < best)
        scale, least = np.where(better, new_scale, scale), np.where(better, new_least, least)
        codes, best = np.where(better, other, codes), np.where(better, found, best)
    return np.where(is_flat, np.float32(0), scale), -least, np.where(is_flat, 0, codes)


def _numerators(levels: int, first: float, step: float, count: int) -> Iterator[np.float32]:
    for i in range(count + 1):
        yield np.float32(first) + np.float32(step) * np.float32(i) + np.float32(levels)


def _moments(x: Floats, w: Floats, codes: Ints) -> tuple[Floats, Floats]:
    """Sums of w * x * code and of w * code * code: their ratio is the best scale for these codes."""
    q = codes.astype(np.float32)
    return total(w * x * q), total(w * q * q)


class _Turns:
    """Go through a group up to five times: each code becomes the best for the scale of all others, if that helps.

    `codes` has the type of C's array, which what is stored in it wraps around in.
    """

    def __init__(self, x: Floats, w: Floats, codes: npt.NDArray[np.int8 | np.uint8], by_x: Floats, by_code: Floats):
        self.x, self.w, self.codes, self.by_x, self.by_code = x, w, codes, by_x[:, 0], by_code[:, 0]

    def run(
        self, limited: Callable[[Ints], Ints], allowed: Callable[[Floats, Floats], npt.NDArray[np.bool_]]
    ) -> tuple[Ints, Floats, Floats]:
        """Codes, and sums as `_moments`. `allowed` gets the sums of squares without a code, and with the new one."""
        for _ in range(5):
            changes = [self._turn(i, limited, allowed) for i in range(self.x.shape[1])]
            if not any(changes):
                break
        return self.codes.astype(np.int32), self.by_x[:, None], self.by_code[:, None]

    def _turn(self, i: int, limited: Callable[[Ints], Ints], allowed: Callable[..., npt.NDArray[np.bool_]]) -> bool:
        w, x, old = self.w[:, i], self.x[:, i], self.codes[:, i]
        q = old.astype(np.float32)
        rest_x, rest_code = self.by_x - w * x * q, self.by_code - w * q * q
        best: Floats = np.divide(x * rest_code, rest_x)
        new = limited(nearest(best))
        q = new.astype(np.float32)
        by_x, by_code = rest_x + w * x * q, rest_code + w * q * q
        better = (rest_x > 0) & (new != old) & allowed(rest_code, by_code)
        better &= by_x * by_x * self.by_code > self.by_x * self.by_x * by_code
        self.codes[:, i] = np.where(better, new, old)
        self.by_x, self.by_code = np.where(better, by_x, self.by_x), np.where(better, by_code, self.by_code)
        return bool(better.any())
