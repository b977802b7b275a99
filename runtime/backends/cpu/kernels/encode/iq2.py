"""Two bits and more: IQ2_XXS IQ2_XS IQ2_S. The definition: `formats/quants/iq2.py`."""

from __future__ import annotations

from ......formats.quants import iq2 as codecs
from ...simd.emit import I8, I16, Vec
from .encoder import LANES, Batch
from .k import merged
from .lattice import Lattice, largest, magnitudes, set_costs, small_scales, squares
from .search import positive


class IQ2_XXS(Lattice):
    size, per, block_bytes, search = 32, 8, 66, codecs.IQ2_XXS.search

    @classmethod
    def encode(cls, b: Batch) -> None:
        e = b.e
        set_costs(b, 1.0, squares)
        signs = magnitudes(b.g, cls.search)
        first, most = positive(b.g, 4)[0], largest(b.g)
        kept = e.compare(most, ">=", cls.search.least) & (e.compare(first, "<=", 0.0) ^ 1)
        found = cls.fit(b, signs, first, first * 3.0, kept)
        d, scales, kept = small_scales(found.scale, cls.per, 31, 15)
        bits, found = b.half(d), found.only(kept)
        for at, group in b.blocks():
            e.store(bits.lane(group), at)
        store_pairs(b, bytes_of(found.points), signs_and_scale(found.signs, scales))


class IQ2_XS(Lattice):
    size, per, block_bytes, search = 16, 16, 74, codecs.IQ2_XS.search

    @classmethod
    def encode(cls, b: Batch) -> None:
        e = b.e
        set_costs(b, 1.0, squares)
        found = cls.fit_largest(b)
        d, scales, kept = small_scales(found.scale, cls.per, 31, 15)
        bits, found = b.half(d), found.only(kept)
        halves = [point | sign << 9 for point, sign in zip(found.points, found.signs, strict=True)]
        for at, group in b.blocks():
            e.store(bits.lane(group), at)
            e.store(halves[0] | halves[1] << 16, at, 2)
            e.store(nibbles(scales), at, 66)


class IQ2_S(Lattice):
    size, per, block_bytes, search = 16, 16, 82, codecs.IQ2_S.search

    @classmethod
    def encode(cls, b: Batch) -> None:
        e = b.e
        set_costs(b, 2.0, lambda x, power: power * 0.25 + x * x)
        found = cls.fit_largest(b)
        d, scales, _ = small_scales(found.scale, cls.per, 31, 15)
        bits = b.half(d * 0.9875)
        upper = found.points[0] >> 8 | found.points[1] >> 8 << 2
        for at, group in b.blocks():
            e.store(bits.lane(group), at)
            e.store(e.truncate(bytes_of([point & 255 for point in found.points]), I16), at, 2)
            e.store(e.truncate(bytes_of(found.signs), I16), at, 34)
            e.store(nibbles(upper), at, 66)
            e.store(nibbles(scales), at, 74)


def bytes_of(parts: list[Vec]) -> Vec:
    """Up to four numbers below 256 as the bytes of one int32."""
    return merged([one << 8 * k for k, one in enumerate(parts)])


def signs_and_scale(signs: list[Vec], scales: Vec) -> Vec:
    """Four times 7 bits, and four of a scale: int32."""
    return merged([*(one << 7 * k for k, one in enumerate(signs)), scales << 28])


def nibbles(values: Vec, group: int = 0, per: int = LANES) -> Vec:
    """Numbers below 16 of a block's groups as bytes of two each, the lower one first."""
    low, high = (values.take(range(group + k, group + per, 2)) for k in (0, 1))
    return values.e.truncate(low | high << 4, I8)


def store_pairs(b: Batch, first: Vec, second: Vec) -> None:
    """Two int32 for each of 8 groups, behind the float16 of their block."""
    for at, group in b.blocks():
        lanes = [group + k // 2 + LANES * (k % 2) for k in range(2 * b.per)]
        b.e.store(b.e.shuffle(first, second, lanes), at, 2)
