"""How pages of the cache hold numbers: kernels that read and write them are made for each of these types.

The type is the last part of such a kernel's name; `KV_TYPES` of runtime/cache/kv.py has the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from ..simd.emit import F32, I16, Emitter, Vec
from ..simd.table import load, load_f16, load_f32, load_half, store, store_f16, store_f32, store_half

PAGE = 32  # positions


@dataclass(frozen=True)
class PageType:
    """Numbers of `size` bytes. Kernels use `load` and `store` for 16 of them, which are float32 outside the page, and
    `load_one` and `store_one`; their inner parts hold `element`s, `widened` to float32 and `narrowed` again.
    """

    size: int
    load: Any
    load_one: Any
    store: Any
    store_one: Any
    element: ir.Type
    widened: Callable[[Emitter, Vec], Vec]
    narrowed: Callable[[Emitter, Vec], Vec]

    def read(self, e: Emitter, at: ir.Value, n: int, first: int = 0) -> Vec:
        """The n numbers from number `first` on, as float32."""
        return self.widened(e, e.load(self.element, n, at, self.size * first))


def _same(_: Emitter, numbers: Vec) -> Vec:
    return numbers


F16_PAGES = PageType(2, load_half, load_f16, store_half, store_f16, I16, Emitter.half_to_float, Emitter.float_to_half)
F32_PAGES = PageType(4, load, load_f32, store, store_f32, F32, _same, _same)
PAGE_TYPES = {"f16": F16_PAGES, "f32": F32_PAGES}
