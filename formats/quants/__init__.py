"""Block codecs: what the bytes of every supported tensor type mean, exactly, in plain NumPy.

    codec = codec_for(GGMLType.Q4_K)    # UnsupportedError for a type without one
    codec.block                         # the layout of a block, as a NumPy dtype
    codec.decode(data)                  # uint8[..., row_bytes] -> float32[..., cols]
    codec.encode(weights, importance)   # the other way, as ggml does it; the importance of each column may be left out
    encode_best(GGMLType.Q4_0, weights, importance)     # with a lower error, where the type has a search

These are the definition that fast kernels are tested against.
"""

from __future__ import annotations

from . import basic, floats, fp4, int8, iq, iq1, iq2, iq3, k, low, nf4  # noqa: F401  (importing registers codecs)
from .best import encode_best
from .codec import CODECS, BlockCodec, CodecError, NotFiniteError, check_importance, codec_for, decode, row_powers
from .forms import FORMS

__all__ = [
    "CODECS",
    "FORMS",
    "BlockCodec",
    "CodecError",
    "NotFiniteError",
    "check_importance",
    "codec_for",
    "decode",
    "encode_best",
    "row_powers",
]
