"""Better encoders: of many scales the one with the least error, where ggml's encoders try one or a few.

    encode_best(GGMLType.Q4_0, weights, importance)     # uint8[..., row_bytes], as those of the codec

A group of weights becomes level[code] * scale + minimum. Types differ in their levels, and in what they can store of a
scale (forms.py); the search is the same for all of them. It begins with what ggml's encoder made of the group. Then it
tries scales, from one that cuts off the largest weights to one that reaches beyond them. Each weight takes the nearest
level; the scale becomes the best one for these levels, by least squares; and each weight takes the level that is
nearest now. A try counts as it will be read, with its scale as it is stored, and only if its error is lower. So no
block has a larger error than ggml's.

The error of a group is the sum of w * (what is read - x) ** 2: w is 1, or with an importance what `_cost` says. Sums
run over a group from the first weight to the last, in float32: kernels do the same and find the same bytes.
"""

from __future__ import annotations

import numpy as np

from ..gguf.types import GGMLType
from .basic import reciprocal
from .codec import BlockImportance, Blocks, Bytes, Floats, codec_for
from .forms import FORMS, Form, half
from .search import total

TURNS = 2  # of finding levels for a scale and a scale for levels
LOWER = np.float32(1 - 2.0**-16)  # an error is lower if it is so by more than float32 sums of 64 terms round
LEAST = np.float32(1e-30)  # errors below it lose digits as float32: they are left alone


def encode_best(ggml_type: GGMLType, weights: Floats, importance: Floats | None = None) -> Bytes:
    """float32[..., cols] -> uint8[..., row_bytes]; as `BlockCodec.encode`, whose bytes types without a search get."""
    codec = codec_for(ggml_type)
    return codec.encode(weights, importance, improved if ggml_type in FORMS else None)


def improved(b: Blocks, x: Floats, ggml_type: GGMLType, importance: BlockImportance | None) -> Blocks:
    """Blocks of weights float32 [n, block_size] with a lower error, or as they are."""
    form = FORMS[ggml_type]
    groups = x.reshape(-1, form.size)
    w = np.ones_like(groups) if importance is None else _cost(x, importance).reshape(groups.shape)
    scale, minimum, level = first = form.read(b)
    least = _error(groups, w, *first)
    span, origin = _reach(form, groups)
    is_new = np.zeros(span.shape, np.bool_)
    for factor, shift in form.tries:
        other, low = span * np.float32(factor / form.top), origin + span * np.float32(shift)
        for _ in range(TURNS):
            other, low = form.stored(b, other), half(low) if form.has_minimum else low
            found = form.nearest_level((groups - low) * reciprocal(other))
            error = _error(groups, w, other, low, found)
            better = (error < least * LOWER) & (least > LEAST)
            least, is_new = np.where(better, error, least), is_new | better
            scale, minimum = np.where(better, other, scale), np.where(better, low, minimum)
            level = np.where(better, found, level)
            other, low = _refitted(form, groups, w, found, other, low)
    changed = is_new.reshape(len(b), -1).any(axis=1)
    made = b.copy()
    form.write(made, scale, minimum, level)
    return np.where(changed, made, b)


def _cost(x: Floats, importance: BlockImportance) -> Floats:
    """As ggml weighs errors in Q4_0 and its like: those of small weights count less.

    With the importance alone predictions were worse, see "Tried, and not kept" in docs/performance.md.
    """
    return importance.columns * np.sqrt(importance.row_power + x * x)


def _error(x: Floats, w: Floats, scale: Floats, minimum: Floats, level: Floats) -> Floats:
    off = level * scale + minimum - x
    return total(w * off * off)


def _reach(form: Form, x: Floats) -> tuple[Floats, Floats]:
    """How far weights reach, and from where."""
    if not form.has_minimum:
        return np.abs(x).max(axis=1, keepdims=True), np.zeros((len(x), 1), np.float32)
    least = x.min(axis=1, keepdims=True)
    return x.max(axis=1, keepdims=True) - least, least


def _refitted(form: Form, x: Floats, w: Floats, level: Floats, scale: Floats, minimum: Floats) -> tuple[Floats, Floats]:
    """The scale and the minimum with the least error for some levels, or the old ones where these do not say."""
    by_1 = w * level
    by_x, by_level = total(by_1 * x), total(by_1 * level)
    if not form.has_minimum:
        by_itself: Floats = by_x / by_level
        return np.where(np.abs(by_itself) < np.inf, by_itself, scale), minimum
    all_1, all_w, all_x = total(by_1), total(w), total(w * x)
    determinant = all_w * by_level - all_1 * all_1
    other, low = (all_w * by_x - all_x * all_1) / determinant, (by_level * all_x - all_1 * by_x) / determinant
    is_found = (np.abs(other) < np.inf) & (np.abs(low) < np.inf)
    return np.where(is_found, other, scale), np.where(is_found, low, minimum)
