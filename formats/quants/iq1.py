"""Less than two bits: IQ1_S, IQ1_M. 8 weights, each -1, 0 or 1, are a point of a grid, shifted up or down by 1/8.

In the layouts `d` scales the scales of groups, which are three bits; `qs` holds the lower eight of points' eleven bits.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from ..gguf.types import GGMLType
from .basic import column, half
from .bits import Codes, unpack
from .codec import BlockCodec, BlockImportance, Blocks, Floats
from .grids import Nearby, grid
from .lattice import costs, small_scales, squares
from .search import Ints, total
from .splits import Split, of_groups, of_halves

SHIFT = np.float32(0.125)


class IQ1_S(BlockCodec, ggml=GGMLType.IQ1_S):
    # 8 groups of 32: w = d * (2 * scale + 1) * (point + shift). In `qh`: three bits of four points, the scale, and
    # whether the shift is down.
    block = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("qh", "<u2", 8)])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        qh = b["qh"]
        upper = qh[:, :, None] >> np.array([0, 3, 6, 9], np.uint16) & np.uint16(7)
        scale = column(b["d"]) * (np.float32(2) * (qh >> np.uint16(12) & np.uint16(7)) + np.float32(1))
        return _shifted(scale, b["qs"] | upper.reshape(-1, 32) << np.uint16(8), qh >> np.uint16(15))

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        cost = costs(cls, x, importance, 2).reshape(-1, 32)
        split = of_groups(x.reshape(-1, 32), cost, SHIFT, np.float32(1e-12))
        scale, points = _on_grid(x.reshape(-1, 32), cost, split)
        b = np.zeros(len(x), cls.block)
        d, scales, kept = small_scales(cls, scale.reshape(-1, 8), 15, 7)
        b["d"], b["qs"] = half(cls, d * np.float32(1.125)), (points & 255).reshape(-1, 32)
        upper = ((points >> 8) << np.array([0, 3, 6, 9])).sum(axis=1).reshape(-1, 8)
        above = np.where(kept[:, None], scales | split.is_down[:, 0].reshape(-1, 8) << np.uint8(3), 0)
        b["qh"] = upper | above.astype(np.int32) << 12
        return b


class IQ1_M(BlockCodec, ggml=GGMLType.IQ1_M):
    # 16 groups of 16: w = d * (2 * scale + 1) * (point + shift). A nibble of `qh` holds three bits of a point and
    # whether its shift is down; a word of `scales` those of four groups and, above them, four bits of d, a float16.
    block = np.dtype([("qs", "u1", 32), ("qh", "u1", 16), ("scales", "<u2", 4)])

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        nibbles = unpack(b["qh"], 4, 1)
        three_bits = b["scales"][:, :, None] >> np.array([0, 3, 6, 9], np.uint16) & np.uint16(7)
        fields = b["scales"] >> np.uint16(12) << np.array([0, 4, 8, 12], np.uint16)
        d = np.bitwise_or.reduce(fields, axis=1).view(np.float16)
        scale = column(d) * (np.float32(2) * three_bits.reshape(-1, 16) + np.float32(1))
        upper = (nibbles & np.uint8(7)).astype(np.uint16)
        return _shifted(scale, b["qs"] | upper << np.uint16(8), nibbles >> np.uint8(3))

    @classmethod
    def encode_blocks(cls, x: Floats, importance: BlockImportance | None) -> Blocks:
        cost = costs(cls, x, importance, 2, squares).reshape(-1, 16)
        split = of_halves(x.reshape(-1, 16), cost, SHIFT, np.float32(1e-7))
        scale, points = _on_grid(x.reshape(-1, 16), cost, split)
        b = np.zeros(len(x), cls.block)
        d, scales, kept = small_scales(cls, scale.reshape(-1, 16), 15, 7)
        b["qs"] = (points & 255).reshape(-1, 32)
        is_down = split.is_down.reshape(-1, 16, 2) & kept[:, None, None]
        nibbles = (points >> 8).reshape(-1, 16, 2) | is_down << 3
        b["qh"] = nibbles[:, :, 0] | nibbles[:, :, 1] << 4
        d = _best_scale(x, cost.reshape(x.shape), points, split, scales, d)
        stored = half(cls, np.where(kept[:, None], d * np.float32(1.1125), np.float32(0))).view(np.uint16)
        four = (scales.reshape(-1, 4, 4).astype(np.uint16) << np.array([0, 3, 6, 9], np.uint16)).sum(axis=2)
        b["scales"] = four | (stored[:, None] >> np.array([0, 4, 8, 12], np.uint16) & np.uint16(15)) << np.uint16(12)
        return b


@cache
def nearby() -> Nearby:
    """Levels are -1, 0, 1 while points are searched; shifts are added."""
    return Nearby(grid("IQ1_S"), np.array([-1, 0, 1], np.float32), 3)


def _shifts(is_down: npt.NDArray[np.bool_ | np.unsignedinteger]) -> Floats:
    shifts: Floats = np.where(is_down, -SHIFT, SHIFT)
    return shifts


def _shifted(scale: Floats, points: npt.NDArray[np.uint16], is_down: npt.NDArray[np.unsignedinteger]) -> Floats:
    """scale float32[n, groups], points [n, 32], is_down [n, groups of points that share a shift]."""
    w = grid("IQ1_S").values[points].reshape(*is_down.shape, -1)
    w += _shifts(is_down)[:, :, None]
    w = w.reshape(*scale.shape, -1)
    w *= scale[:, :, None]
    return w.reshape(len(w), -1)


def _on_grid(x: Floats, w: Floats, split: Split) -> tuple[Floats, Ints]:
    """Scales float32[n] and points int32[n, size // 8] for the levels that a split gives to weights of groups."""
    near, eights = nearby(), x.reshape(-1, 8)
    places = near.grid.places(split.levels.reshape(-1, 8).T)
    points = near.on_grid[places]
    off = points < 0
    shift = np.repeat(_shifts(split.is_down), len(eights) // split.is_down.size)
    scale = np.repeat(split.scale, x.shape[1] // 8)
    points[off] = near.find(places[off], eights[off].T, w.reshape(-1, 8)[off].T, scale[off], shift[off])
    q = (near.values.T[points] + shift[:, None]).reshape(x.shape)
    by_x, by_level = total(w * q * x)[:, 0], total(w * q * q)[:, 0]
    anew = off.reshape(len(x), -1).any(axis=1) & (by_x > 0) & (by_level > 0)
    scale = np.where(anew, by_x / by_level, split.scale)
    return np.where(split.kept, scale, np.float32(0)), np.where(split.kept[:, None], points.reshape(len(x), -1), 0)


def _best_scale(x: Floats, w: Floats, points: Ints, split: Split, scales: Codes, d: Floats) -> Floats:
    """The best scale of each block once all else is chosen, in place of d: float32[n, 1]."""
    q = nearby().values.T[points.reshape(-1, 2)] + _shifts(split.is_down)[:, :, None]
    q = q.reshape(-1, 16, 16) * (np.float32(2) * scales + np.float32(1))[:, :, None]
    q = q.reshape(x.shape)
    by_x, by_level = total(w * q * x), total(w * q * q)
    return np.where(by_level > 0, by_x / by_level, d)
