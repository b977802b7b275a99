"""LLM.int8: eight bits and one scale for each row, as blocks of Q8_0 whose scales are equal."""

from __future__ import annotations

import numpy as np

from ..gguf.types import GGMLType
from .basic import Q8_0, half
from .codec import CHUNK_WEIGHTS, BlockCodec, Blocks, Bytes, Floats, Improved, require_dtype, require_finite


class INT8(BlockCodec, ggml=GGMLType.INT8):
    block = Q8_0.block  # w = d * q; the same d all over a row

    @staticmethod
    def decode_blocks(b: Blocks) -> Floats:
        return Q8_0.decode_blocks(b)

    @classmethod
    def encode(cls, weights: Floats, importance: Floats | None = None, improved: Improved | None = None) -> Bytes:
        """float32[..., cols] -> uint8[..., row_bytes]: bitsandbytes' codes, absmax / 127 of a row rounded to float16.

        Raises CodecError as other types do. An importance changes nothing, and there is nothing to improve.
        """
        require_dtype(cls, weights, np.float32)
        require_finite(cls.type.name, weights)
        out = np.empty(cls.byte_shape(weights.shape), np.uint8)
        if weights.size:
            rows, target = weights.reshape(-1, weights.shape[-1]), out.reshape(-1, out.shape[-1])
            step = max(1, CHUNK_WEIGHTS // rows.shape[1])
            with np.errstate(all="ignore"):
                for lo in range(0, len(rows), step):
                    target[lo : lo + step] = blocks_of(*quantize_rows(rows[lo : lo + step]))
        return out


def quantize_rows(x: Floats) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.int8]], Floats]:
    """float32[rows, cols] -> codes int8[rows, cols] and the absmax of each row, float32[rows].

    As bitsandbytes' int8_vectorwise_quant without a threshold.
    """
    absmax = np.abs(x).max(axis=1)
    scale = np.divide(np.float32(127), absmax, out=np.zeros_like(absmax), where=absmax != 0)
    return np.rint(x * scale[:, None]).astype(np.int8), absmax


def blocks_of(codes: np.ndarray[tuple[int, int], np.dtype[np.int8]], absmax: Floats) -> Bytes:
    """Codes and the absmax of each row as rows of Q8_0, uint8[rows, row_bytes]; CodecError if float16 has no absmax."""
    rows, cols = codes.shape
    b = np.empty((rows, cols // 32), INT8.block)
    b["d"] = half(INT8, absmax[:, None] / np.float32(127))[:, None]
    b["qs"] = codes.reshape(rows, -1, 32)
    return b.view(np.uint8)
