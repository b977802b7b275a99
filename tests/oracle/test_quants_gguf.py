"""Block codecs against the gguf package: every bit of every weight, on random bytes as blocks."""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from gguf.quants import dequantize, quantize
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS

from ..builders_quants import random_blocks, store_scales

NUM_BLOCKS = 10_000
# Those that it knows.
ALL = sorted(t for t in CODECS if t.on_disk and t.name not in ("Q1_0", "Q2_0", "Q8_1", "Q8_K"))
# What the gguf package has an encoder for; those of all types are held against ggml's in test_encoders.py.
SIMPLE = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 MXFP4 TQ1_0 TQ2_0"
ENCODED = [t for t in ALL if t.name in SIMPLE.split()]
FLOATS = [t for t in ALL if CODECS[t].block_size == 1]


def oracle(data: npt.NDArray[np.uint8], ggml_type: GGMLType) -> npt.NDArray[np.float32]:
    with np.errstate(all="ignore"):
        return dequantize(data, gguf.GGMLQuantizationType(int(ggml_type)))


def bits(x: npt.NDArray[np.float32], ggml_type: GGMLType) -> npt.NDArray[np.uint32]:
    """The bits of x: signs of zeros count, and so do NaNs.

    Where arithmetic is involved all NaNs count as one: which operand's payload survives a sum of two NaNs depends on
    how NumPy's loops were compiled. Types that only move bits keep their payloads.
    """
    x = np.ascontiguousarray(x)
    return x.view(np.uint32) if ggml_type in FLOATS else np.where(np.isnan(x), np.float32(np.nan), x).view(np.uint32)


def assert_same(data: npt.NDArray[np.uint8], ggml_type: GGMLType) -> None:
    np.testing.assert_array_equal(
        bits(CODECS[ggml_type].decode(data), ggml_type), bits(oracle(data, ggml_type), ggml_type)
    )


@pytest.mark.parametrize("ggml_type", ALL, ids=lambda t: t.name)
def test_random_bytes(ggml_type: GGMLType):
    rng = np.random.default_rng(17)
    assert_same(rng.integers(0, 256, (NUM_BLOCKS, CODECS[ggml_type].block_bytes), np.uint8), ggml_type)


@pytest.mark.parametrize("ggml_type", ALL, ids=lambda t: t.name)
def test_constant_bytes_and_edge_scales(ggml_type: GGMLType):
    codec = CODECS[ggml_type]
    assert_same(np.repeat(np.arange(256, dtype=np.uint8)[:, None], codec.block_bytes, 1), ggml_type)
    edges = np.array([0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7C01, 0x7E00], "<u2")
    rng = np.random.default_rng(18)
    for name in [n for n in codec.block.names or () if codec.block[n] == np.dtype("<f2")]:
        data = rng.integers(0, 256, (len(edges), codec.block_bytes), np.uint8)
        data.view(codec.block)[name] = edges.view("<f2")[:, None]
        assert_same(data, ggml_type)
    if ggml_type is GGMLType.IQ1_M:
        data = rng.integers(0, 256, (len(edges), codec.block_bytes), np.uint8)
        store_scales(data.view(codec.block)[:, 0], edges.view("<f2"))
        assert_same(data, ggml_type)


def test_every_value_of_the_sixteen_bit_floats_and_of_the_shared_exponent():
    everything = np.arange(1 << 16, dtype="<u2").view(np.uint8)
    assert_same(everything, GGMLType.F16)
    assert_same(everything, GGMLType.BF16)
    exponents = np.random.default_rng(19).integers(0, 256, (256, 17), np.uint8)
    exponents[:, 0] = np.arange(256)
    assert_same(exponents, GGMLType.MXFP4)


@pytest.mark.parametrize("ggml_type", [t for t in ALL if t is not GGMLType.NVFP4], ids=lambda t: t.name)
def test_every_bit_of_a_block_is_read(ggml_type: GGMLType):
    """Flipping any one bit changes some weight, in the same way on both sides: the comparison would see a wrong bit."""
    codec = CODECS[ggml_type]
    seen = np.zeros(8 * codec.block_bytes, bool)
    for block in random_blocks(ggml_type, (6, codec.block_size), np.random.default_rng(20)):
        flipped = np.repeat(block[None], len(seen), 0)
        flipped ^= np.packbits(np.eye(len(seen), dtype=np.uint8), axis=1)
        seen |= (codec.decode(flipped) != codec.decode(block)).any(1)
        assert_same(flipped, ggml_type)
    assert seen.all(), f"bits without effect: {np.flatnonzero(~seen)}"


def weights() -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(21)
    x = (rng.standard_normal((2, 600, 256)) * 10.0 ** rng.integers(-12, 4, (2, 600, 1))).astype(np.float32)
    x[0, 0] = 0
    x[0, 1] = -0.0
    x[0, 2] = 1.5
    x[0, 3, ::2] = -x[0, 3, 1::2]  # the largest magnitude occurs with both signs
    x[0, 4] = np.tile([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127, -127], 32)  # halves: which way do they round?
    return x


@pytest.mark.parametrize("ggml_type", ENCODED, ids=lambda t: t.name)
def test_encoders(ggml_type: GGMLType):
    x = weights()
    if ggml_type in (GGMLType.Q4_0, GGMLType.Q5_0):
        x[0, 1] = 0  # the scale of -0 is -0 in ggml, as that of 0 is, and 0 in the package
    with np.errstate(all="ignore"):
        expected = quantize(x, gguf.GGMLQuantizationType(int(ggml_type))).view(np.uint8)
    np.testing.assert_array_equal(CODECS[ggml_type].encode(x), expected)


@pytest.mark.parametrize("ggml_type", FLOATS, ids=lambda t: t.name)
def test_float_encoders_on_random_bits(ggml_type: GGMLType):
    """Subnormals, infinities and NaNs with any payload."""
    x = np.random.default_rng(22).integers(0, 1 << 32, (1000, 256), np.uint32)
    x[:8] |= np.uint32(0x7F800000)  # NaN
    x[8, :4] = [0x7F800001, 0xFF800001, 0x7F800000, 0xFF800000]  # signalling NaN, infinity
    with np.errstate(all="ignore"):
        expected = quantize(x.view(np.float32), gguf.GGMLQuantizationType(int(ggml_type))).view(np.uint8)
    np.testing.assert_array_equal(CODECS[ggml_type].encode(x.view(np.float32)), expected)
