"""The types that have kernels. The parent process asks these names, the compiler process the classes."""

from __future__ import annotations

from .basic import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
from .floats import BF16, F16, FloatType
from .fp4 import MXFP4
from .iq import IQ4_NL, IQ4_XS
from .k import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K
from .weights import WeightType

QUANTIZED: dict[str, type[WeightType]] = {
    t.__name__: t
    for t in (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4)
}  # fmt: skip
FLOATS: dict[str, type[FloatType]] = {"F32": FloatType, "F16": F16, "BF16": BF16}
