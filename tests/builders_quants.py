"""Random but valid blocks of every type, for tests that need weights in a type without an encoder."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import codec_for

TARGET_STD = 0.03

# Standard deviation of the weights with uniformly random codes and inner scales, d = 1, and dmin or m as in OFFSETS.
UNIT_STD = {
    GGMLType.Q4_0: 4.61,
    GGMLType.Q4_1: 4.61,
    GGMLType.Q5_0: 9.23,
    GGMLType.Q5_1: 9.23,
    GGMLType.Q8_0: 73.9,
    GGMLType.Q2_K: 13.9,
    GGMLType.Q3_K: 43.3,
    GGMLType.Q4_K: 258.0,
    GGMLType.Q5_K: 527.0,
    GGMLType.Q6_K: 1366.0,
    GGMLType.IQ4_NL: 67.4,
    GGMLType.IQ4_XS: 1246.0,
    GGMLType.IQ2_XXS: 53.2,
    GGMLType.IQ2_XS: 55.9,
    GGMLType.IQ2_S: 56.4,
    GGMLType.IQ3_XXS: 142.5,
    GGMLType.IQ3_S: 140.3,
    GGMLType.IQ1_S: 7.19,
    GGMLType.IQ1_M: 7.20,
    GGMLType.TQ1_0: 0.82,
    GGMLType.TQ2_0: 1.12,
    GGMLType.Q1_0: 1.0,
    GGMLType.Q2_0: 1.12,
    GGMLType.Q8_1: 73.9,
    GGMLType.Q8_K: 73.9,
    **dict.fromkeys((t for t in GGMLType if t.name.startswith("NF4")), 0.53),
    **dict.fromkeys((t for t in GGMLType if t.name.startswith("FP4")), 0.49),
    GGMLType.INT8: 73.9,
}

# Types whose weights would not average to zero otherwise: the field that shifts them, in units of d.
OFFSETS = {
    GGMLType.Q4_1: ("m", -7.5),
    GGMLType.Q5_1: ("m", -15.5),
    GGMLType.Q2_K: ("dmin", 1.5),
    GGMLType.Q4_K: ("dmin", 7.5),
    GGMLType.Q5_K: ("dmin", 15.5),
}


def random_blocks(ggml_type: GGMLType, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Stored bytes uint8[..., row_bytes] of weights[shape]: finite, centred, standard deviation about 0.03.

    Codes and inner scales are random bits, so that no two fields are alike and a wrong layout cannot cancel. Scales
    differ per block, and take both signs where the type allows it.
    """
    codec = codec_for(ggml_type)
    if codec.block_size == 1:
        return codec.encode((rng.standard_normal(shape) * TARGET_STD).astype(np.float32))
    data = rng.integers(0, 256, codec.byte_shape(shape), np.uint8)
    blocks = data.reshape(-1).view(codec.block)
    if ggml_type is GGMLType.MXFP4:
        blocks["e"] = rng.integers(119, 122, len(blocks))  # 2**-9 ... 2**-7; the doubled E2M1 values have a std of 5.9
        return data
    if ggml_type is GGMLType.NVFP4:
        blocks["d"] = rng.integers(4, 8, (len(blocks), 4))  # 2**-7 ... 2**-6 of E4M3, half of it
        return data
    d = TARGET_STD / UNIT_STD[ggml_type] * rng.uniform(0.6, 1.4, len(blocks))
    if ggml_type in OFFSETS:
        field, offset = OFFSETS[ggml_type]
        blocks[field] = offset * d
    else:
        d *= rng.choice([-1, 1], len(blocks))
    store_scales(blocks, d)
    return data


def store_scales(blocks: npt.NDArray[np.void], d: npt.ArrayLike) -> None:
    """Put a scale into each block, wherever its type stores it."""
    if "d" in (blocks.dtype.names or ()):
        blocks["d"] = d
        return
    bits = np.broadcast_to(d, blocks.shape).astype("<f2").view("<u2")[:, None]  # IQ1_M: four bits in each of four words
    blocks["scales"] = blocks["scales"] & 0x0FFF | (bits >> np.array([0, 4, 8, 12], np.uint16)) << 12
