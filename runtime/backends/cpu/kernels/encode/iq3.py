"""Three bits and more: IQ3_XXS IQ3_S. The definition: `formats/quants/iq3.py`."""

from __future__ import annotations

from ......formats.quants import iq3 as codecs
from ...simd.emit import I8
from .encoder import Batch
from .iq2 import bytes_of, nibbles, signs_and_scale, store_pairs
from .k import merged
from .lattice import Lattice, set_costs, small_scales, squares


class IQ3_XXS(Lattice):
    size, per, block_bytes, search = 32, 8, 98, codecs.IQ3_XXS.search

    @classmethod
    def encode(cls, b: Batch) -> None:
        e = b.e
        set_costs(b, 2.0, squares)
        found = cls.fit_largest(b)
        d, scales, kept = small_scales(found.scale, cls.per, 31, 15)
        found = found.only(kept)
        bits, words = b.half(d * 1.0125), signs_and_scale(found.signs, scales)
        for at, group in b.blocks():
            e.store(bits.lane(group), at)
            e.store(words.take(range(group, group + cls.per)), at, 66)
        store_pairs(b, bytes_of(found.points[:4]), bytes_of(found.points[4:]))


class IQ3_S(Lattice):
    size, per, block_bytes, search = 32, 8, 110, codecs.IQ3_S.search

    @classmethod
    def encode(cls, b: Batch) -> None:
        e = b.e
        set_costs(b, 2.0, squares)
        found = cls.fit_largest(b)
        d, scales, _ = small_scales(found.scale, cls.per, 31, 15)
        bits, signs = b.half(d * 1.033), bytes_of(found.signs)
        low, ninth = [point & 255 for point in found.points], merged([p >> 8 << k for k, p in enumerate(found.points)])
        for at, group in b.blocks():
            own = range(group, group + cls.per)
            e.store(bits.lane(group), at)
            e.store(e.truncate(ninth.take(own), I8), at, 66)
            e.store(signs.take(own), at, 74)
            e.store(nibbles(scales, group, cls.per), at, 106)
        store_pairs(b, bytes_of(low[:4]), bytes_of(low[4:]))
