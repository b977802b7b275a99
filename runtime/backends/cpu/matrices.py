"""Weights as kernels see them: the types there are kernels for, what multiplies prompts with one, and its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....formats.quants import decode
from ...graph.ir import Weight
from .features import target

FLOATS = ("F32", "F16", "BF16")
KERNEL_TYPES = frozenset({
    *FLOATS, "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "MXFP4", "NVFP4", "TQ1_0", "TQ2_0", "Q1_0",
    "Q2_0", "NF4", "NF4_32", "FP4", "FP4_32",
})  # fmt: skip


def in_tiles(weight: Weight) -> bool:
    """Whether prompts are multiplied with this weight in tile registers. Float32 keeps all its bits: it is not."""
    return target().isa.tiles and weight.type.name in KERNEL_TYPES - {"F32"} and weight.cols % 32 == 0


def in_pairs(weight: Weight) -> bool:
    """Whether prompts are multiplied with this weight as pairs of bfloat16."""
    return target().isa.pairs and weight.type.name in ("F16", "BF16") and weight.cols % 32 == 0


def vector(weight: Weight | None) -> NDArray[np.float32] | int:
    """A norm or bias as float32 (in place when it is stored so), 0 when there is none."""
    if weight is None:
        return 0
    if weight.type.name == "F32" and weight.data.flags.c_contiguous:
        return weight.data.view(np.float32)
    return decode(weight.data, weight.type)


def matrix(weight: Weight) -> dict[str, Any]:
    """The arguments that describe a weight matrix, which is read where the file is mapped."""
    row_bytes = weight.data.shape[-1]
    if not weight.data.flags.c_contiguous:
        raise AssertionError(f"{weight.name} is not contiguous")
    return {"w": weight.data, "row_bytes": row_bytes, "n": weight.n_rows}
