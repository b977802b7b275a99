"""The types that there are kernels for, and the points of their grids."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .....formats.quants.grids import grid
from . import basic, four_bit, k, lattice, low

UNPACK: dict[str, Any] = {
    "Q4_0": basic.q4_0, "Q4_1": basic.q4_1, "Q5_0": basic.q5_0, "Q5_1": basic.q5_1, "Q8_0": basic.q8_0,
    "Q2_K": k.q2_k, "Q3_K": k.q3_k, "Q4_K": k.q4_k, "Q5_K": k.q5_k, "Q6_K": k.q6_k,
    "IQ4_NL": four_bit.iq4_nl, "IQ4_XS": four_bit.iq4_xs, "MXFP4": four_bit.mxfp4, "NVFP4": four_bit.nvfp4,
    "NF4": four_bit.nf4, "NF4_32": four_bit.nf4_32, "FP4": four_bit.fp4, "FP4_32": four_bit.fp4_32,
    "TQ1_0": low.tq1_0, "TQ2_0": low.tq2_0, "Q1_0": low.q1_0, "Q2_0": low.q2_0,
    "IQ2_XXS": lattice.iq2_xxs, "IQ2_XS": lattice.iq2_xs, "IQ2_S": lattice.iq2_s, "IQ3_XXS": lattice.iq3_xxs,
    "IQ3_S": lattice.iq3_s, "IQ1_S": lattice.iq1_s, "IQ1_M": lattice.iq1_m,
}  # fmt: skip
# Types whose groups have two scales, one for each half; and types without offsets.
HALVES = frozenset({"Q2_K", "Q3_K", "Q6_K", "NVFP4", "IQ2_XS", "IQ2_S", "IQ1_M"})
PLAIN = frozenset({
    "Q8_0", "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4", "NF4", "NF4_32", "FP4", "FP4_32", "IQ2_XXS", "IQ2_XS", "IQ2_S",
    "IQ3_XXS", "IQ3_S", "IQ1_M",
})  # fmt: skip
_LATTICES = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")


@cache
def table_of(type_name: str) -> NDArray[np.int32]:
    """Points as words of four signed bytes, in their order; empty for types without a grid."""
    if type_name in _LATTICES:
        return _words(grid(type_name).values)
    if type_name == "IQ1_S":
        return _words(grid("IQ1_S").values)
    if type_name == "IQ1_M":
        eighths = 8 * grid("IQ1_S").values
        return np.concatenate([_words(eighths + 1), _words(eighths - 1)])
    return np.zeros(1, np.int32)


def _words(points: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.ascontiguousarray(points.astype(np.int8)).view(np.int32).reshape(-1)
