"""GGUF enumerations: tensor types with their block geometry, metadata value types.

Source: the GGUF specification and ggml's type table (`ggml.h`, COUNT = 43). Removed ids are absent on purpose: they
are refused.

Ids from 1000 on are Halfbyte's own names for what a file stores as other types and keys (container.py). No file has
them: the reader refuses such an id, and so does the writer.
"""

from __future__ import annotations

from enum import IntEnum

FIRST_IN_MEMORY = 1000
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # of bitsandbytes


class GGMLType(IntEnum):
    """Tensor element types as stored on disk, and those of bitsandbytes, which are stored in other ways."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41
    Q2_0 = 42
    # Four bits and an absmax for each block of 64 weights, or as many as the name says; with DQ the absmaxes were
    # quantized too, and in memory they are float32.
    NF4_32, NF4, NF4_128, NF4_256, NF4_512, NF4_1024, NF4_2048, NF4_4096 = range(1000, 1008)
    NF4_DQ_32, NF4_DQ, NF4_DQ_128, NF4_DQ_256, NF4_DQ_512, NF4_DQ_1024, NF4_DQ_2048, NF4_DQ_4096 = range(1008, 1016)
    FP4_32, FP4, FP4_128, FP4_256, FP4_512, FP4_1024, FP4_2048, FP4_4096 = range(1016, 1024)
    FP4_DQ_32, FP4_DQ, FP4_DQ_128, FP4_DQ_256, FP4_DQ_512, FP4_DQ_1024, FP4_DQ_2048, FP4_DQ_4096 = range(1024, 1032)
    INT8 = 1032  # Q8_0 whose blocks of a row all have its one scale, as LLM.int8 has it

    @property
    def on_disk(self) -> bool:
        """Whether a file may say that a tensor is of this type."""
        return self < FIRST_IN_MEMORY

    @property
    def block_size(self) -> int:
        """Elements in one block; a row length must be a multiple of it."""
        return BLOCKS[self][0]

    @property
    def block_bytes(self) -> int:
        """Bytes of one block."""
        return BLOCKS[self][1]

    def row_bytes(self, n_elements: int) -> int:
        """Bytes of a row of `n_elements` (a multiple of `block_size`, checked by the caller)."""
        return n_elements // self.block_size * self.block_bytes


# type -> (elements per block, bytes per block)
BLOCKS: dict[GGMLType, tuple[int, int]] = {
    GGMLType.F32: (1, 4),
    GGMLType.F16: (1, 2),
    GGMLType.Q4_0: (32, 18),
    GGMLType.Q4_1: (32, 20),
    GGMLType.Q5_0: (32, 22),
    GGMLType.Q5_1: (32, 24),
    GGMLType.Q8_0: (32, 34),
    GGMLType.Q8_1: (32, 36),
    GGMLType.Q2_K: (256, 84),
    GGMLType.Q3_K: (256, 110),
    GGMLType.Q4_K: (256, 144),
    GGMLType.Q5_K: (256, 176),
    GGMLType.Q6_K: (256, 210),
    GGMLType.Q8_K: (256, 292),
    GGMLType.IQ2_XXS: (256, 66),
    GGMLType.IQ2_XS: (256, 74),
    GGMLType.IQ3_XXS: (256, 98),
    GGMLType.IQ1_S: (256, 50),
    GGMLType.IQ4_NL: (32, 18),
    GGMLType.IQ3_S: (256, 110),
    GGMLType.IQ2_S: (256, 82),
    GGMLType.IQ4_XS: (256, 136),
    GGMLType.I8: (1, 1),
    GGMLType.I16: (1, 2),
    GGMLType.I32: (1, 4),
    GGMLType.I64: (1, 8),
    GGMLType.F64: (1, 8),
    GGMLType.IQ1_M: (256, 56),
    GGMLType.BF16: (1, 2),
    GGMLType.TQ1_0: (256, 54),
    GGMLType.TQ2_0: (256, 66),
    GGMLType.MXFP4: (32, 17),
    GGMLType.NVFP4: (64, 36),
    GGMLType.Q1_0: (128, 18),
    GGMLType.Q2_0: (64, 18),
    GGMLType.INT8: (32, 34),
}
for _i, _size in enumerate(BLOCK_SIZES):
    for _first in (GGMLType.NF4_32, GGMLType.FP4_32):
        BLOCKS[GGMLType(_first + _i)] = (_size, 2 + _size // 2)
    for _first in (GGMLType.NF4_DQ_32, GGMLType.FP4_DQ_32):
        BLOCKS[GGMLType(_first + _i)] = (_size, 4 + _size // 2)


class ValueType(IntEnum):
    """Types of metadata values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12
