"""Block codecs: what the bytes of every supported tensor type mean, exactly, in plain NumPy.

    codec = codec_for(GGMLType.Q4_K)    # UnsupportedError for a type without one
    codec.block                         # the layout of a block, as a NumPy dtype
    codec.decode(data)                  # uint8[..., row_bytes] -> float32[..., cols]
    codec.encode(weights)               # the other way, where codec.can_encode()

These are the definition that fast kernels are tested against.
"""

from __future__ import annotations

from . import basic, floats, fp4, iq, k  # noqa: F401  (importing a family registers its codecs)
from .codec import CODECS, BlockCodec, CodecError, codec_for, decode

__all__ = ["CODECS", "BlockCodec", "CodecError", "codec_for", "decode"]
