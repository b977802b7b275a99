"""The types that have kernels. The parent process asks these names, the compiler process the classes."""

from __future__ import annotations

from .basic import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
from .floats import BF16, F16, FloatType
from .fp4 import MXFP4, NVFP4
from .iq import IQ4_NL, IQ4_XS
from .k import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K
from .lattice import IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS
from .low import Q1_0, Q2_0, TQ1_0, TQ2_0
from .nf4 import FP4, FP4_32, NF4, NF4_32
from .weights import WeightType

QUANTIZED: dict[str, type[WeightType]] = {
    t.__name__: t
    for t in (
        Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4, NVFP4, TQ1_0, TQ2_0, Q1_0,
        Q2_0, IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, NF4, NF4_32, FP4, FP4_32,
    )
}  # fmt: skip
FLOATS: dict[str, type[FloatType]] = {"F32": FloatType, "F16": F16, "BF16": BF16}
