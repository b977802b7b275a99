"""The types that have an encoder here: all of ggml but F32, which is a copy."""

from __future__ import annotations

from .basic import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1
from .encoder import Encoder
from .floats import BF16, F16
from .fp4 import MXFP4, NVFP4
from .iq import IQ4_NL, IQ4_XS
from .iq1 import IQ1_M, IQ1_S
from .iq2 import IQ2_S, IQ2_XS, IQ2_XXS
from .iq3 import IQ3_S, IQ3_XXS
from .k import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K
from .low import Q1_0, Q2_0, TQ1_0, TQ2_0

ENCODERS: dict[str, type[Encoder]] = {
    t.__name__: t
    for t in (
        F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K, IQ4_NL, IQ4_XS, MXFP4, NVFP4,
        TQ1_0, TQ2_0, Q1_0, Q2_0, IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S,
    )
}  # fmt: skip
