"""Block codecs against blocks computed by hand, and at the edges of what they accept."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from halfbyte.formats.errors import HalfbyteError, UnsupportedError
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS, CodecError, codec, codec_for, decode

from ..builders_quants import random_blocks, store_scales
from ..encoder_inputs import NEED_IMPORTANCE

UP, DOWN = np.arange(16), np.arange(15, -1, -1)
NIBBLES = bytes(j | (15 - j) << 4 for j in range(16))  # low nibbles count up, high nibbles count down
ONE, TWO, HALF, MINUS_ONE = b"\x00\x3c", b"\x00\x40", b"\x00\x38", b"\x00\xbc"  # float16
LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
E2M1_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12])
# Of bitsandbytes, whose kinds differ in the size of a block only, one for each layout.
TYPES = [t for t in sorted(CODECS) if t.on_disk or t.name in ("NF4_32", "NF4", "NF4_DQ", "FP4_128", "INT8")]
CODED = [t for t in TYPES if CODECS[t].block_size > 1]
HALF_SCALED = [t for t in CODED if t.name not in ("MXFP4", "NVFP4", "Q8_K", "NF4_DQ")]
# Their encoders find the grid of weights that are on one already; those that look for a scale may find another.
GRIDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "MXFP4")
EXACT = [t for t in TYPES if t not in CODED or t.name in GRIDS]
EIGHTS = np.array([[0] * 8, [2] + [0] * 7, [1, 1] + [0] * 6, [0, 2] + [0] * 6])  # levels of points 0 ... 3 of IQ1, IQ2
SIGN_BITS = np.array([0, 0x81, 0xFF, 0x82])  # an even number of minus signs: of the stored 0, 1, 127, 2
SIGNS = 1 - 2 * (SIGN_BITS[:, None] >> np.arange(8) & 1)
SIGN_WORD = (0 | 1 << 7 | 127 << 14 | 2 << 21 | 3 << 28).to_bytes(4, "little")  # with a scale of 3
SIX_BIT_PAIRS = bytes([0x01, 0x02, 0x03, 0x44, 0x0A, 0x0B, 0x0C, 0x8D, 0x15, 0x26, 0x37, 0x48])
PAIR_SCALES, PAIR_MINS = [1, 2, 3, 4, 5, 6, 7, 8 + 16], [10, 11, 12, 13, 1, 2, 3, 4 + 32]


def check(ggml_type: GGMLType, block: bytes, expected: object) -> None:
    got = decode(np.frombuffer(block, np.uint8), ggml_type)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.asarray(expected, np.float32))


def test_float_types():
    check(GGMLType.F32, b"\x00\x00\x80\x3f\x00\x00\x00\xc0", [1, -2])
    check(GGMLType.F16, ONE + b"\x01\x00\xff\x7b\x00\xfc", [1, 2.0**-24, 65504, -np.inf])
    check(GGMLType.BF16, b"\x80\x3f\x00\xc0\x01\x00\x80\x7f", [1, -2, 2.0**-133, np.inf])


def test_q4_0():
    check(GGMLType.Q4_0, TWO + NIBBLES, 2 * np.r_[UP - 8, DOWN - 8])


def test_q4_1():
    check(GGMLType.Q4_1, TWO + MINUS_ONE + NIBBLES, 2 * np.r_[UP, DOWN] - 1)


def test_q5_0():
    fifth_bits = b"\xff\xff\x00\x00"  # set for the first 16 weights
    check(GGMLType.Q5_0, ONE + fifth_bits + NIBBLES, np.r_[UP + 16 - 16, DOWN - 16])


def test_q5_1():
    fifth_bits = b"\x00\x00\x00\x80"  # set for the last weight only
    check(GGMLType.Q5_1, HALF + ONE + fifth_bits + NIBBLES, np.r_[0.5 * UP + 1, 0.5 * DOWN[:-1] + 1, 9])


def test_q8_0():
    check(GGMLType.Q8_0, HALF + b"\x80\x7f\xff" + bytes(29), [-64, 63.5, -0.5] + 29 * [0])


def test_q2_k():
    scales = bytes(g | (15 - g) << 4 for g in range(16))  # group g: scale g, min 15 - g
    codes = bytearray(64 * [0b11_10_01_00])  # in each half, 32 weights each of 0, 1, 2, 3
    codes[63] |= 0b11  # weight 128 + 31, in group 9, becomes 3
    expected = np.repeat([g // 2 % 4 * g - 0.5 * (15 - g) for g in range(16)], 16)
    expected[128 + 31] = 3 * 9 - 0.5 * (15 - 9)
    check(GGMLType.Q2_K, scales + codes + ONE + HALF, expected)


def test_q3_k():
    low = bytes(g | (g + 8) << 4 for g in range(8))  # lower four bits of scale g: g
    high = bytearray(4 * [0b10_10_10_10])  # upper two bits: 2, so that scale g is 32 + g, minus 32
    high[0] = 0b10_10_10_01  # scale 0 is 16, minus 32
    third_bits = bytearray(32 * [0xFF])  # all set: codes 4 ... 7, minus 4
    third_bits[5] &= 0x7F  # not for weight 7 * 32 + 5, in group 14, whose lower bits are 3
    expected = np.repeat([g // 2 % 4 * (g if g else -16) for g in range(16)], 16)
    expected[7 * 32 + 5] = (3 - 4) * 14
    check(GGMLType.Q3_K, third_bits + 64 * b"\xe4" + low + high + ONE, expected)


def test_q4_k():
    codes = 128 * b"\x21"  # groups alternate between 1 and 2
    expected = [PAIR_SCALES[g] * (1 + g % 2) - 2 * PAIR_MINS[g] for g in range(8)]
    check(GGMLType.Q4_K, ONE + TWO + SIX_BIT_PAIRS + codes, np.repeat(expected, 32))


def test_q5_k():
    fifth_bits = b"\x81" + bytes(31)  # set for the first weight of groups 0 and 7
    expected = np.repeat([PAIR_SCALES[g] * (1 + g % 2) - 2 * PAIR_MINS[g] for g in range(8)], 32)
    expected[0] = 1 * (16 + 1) - 2 * 10
    expected[7 * 32] = 24 * (16 + 2) - 2 * 36
    check(GGMLType.Q5_K, ONE + TWO + SIX_BIT_PAIRS + fifth_bits + 128 * b"\x21", expected)


def test_q6_k():
    low = 2 * (32 * b"\x31" + 32 * b"\x42")  # lower four bits: 1, 2, then 3, 4
    high = 64 * b"\xe4"  # upper two bits: 0, 1, 2, 3
    scales = np.arange(-8, 8, dtype=np.int8)
    codes = [1 - 32, 16 + 2 - 32, 32 + 3 - 32, 48 + 4 - 32]
    expected = np.repeat([2 * (g - 8) * codes[g // 2 % 4] for g in range(16)], 16)
    check(GGMLType.Q6_K, low + high + scales.tobytes() + TWO, expected)


def test_nf4_and_fp4():
    from halfbyte.formats.gguf.kinds import CODEBOOKS

    # Byte j: code j, and code j + 32 (in blocks of 32: j + 16) in the upper half. Of a block of 128, one half after
    # the other.
    nf4, fp4 = (np.array(CODEBOOKS[codes], np.float32) for codes in ("nf4", "fp4"))
    check(GGMLType.NF4_32, HALF + NIBBLES, 0.5 * np.r_[nf4, nf4[::-1]])
    check(GGMLType.NF4, TWO + NIBBLES * 2, 2 * np.r_[nf4, nf4, nf4[::-1], nf4[::-1]])
    last = bytes(31) + b"\x30"  # code 3 of the last weight
    check(GGMLType.FP4_128, TWO + NIBBLES * 2 + last, 2 * np.r_[fp4, fp4, fp4[::-1], fp4[::-1], np.zeros(63), 1])
    tenth = np.float32(0.1)
    check(GGMLType.NF4_DQ, tenth.tobytes() + b"\xff" + bytes(31), tenth * nf4[([15] + [0] * 31) * 2])


def test_iq4_nl():
    check(GGMLType.IQ4_NL, HALF + NIBBLES, 0.5 * np.r_[LEVELS, LEVELS[::-1]])


def test_iq4_xs():
    high = b"\xaa\xea"  # upper two bits of the scales: 2, and 3 for the last
    low = b"\x10\x32\x54\x76"  # lower four bits: 0 ... 7
    scales = [0, 1, 2, 3, 4, 5, 6, 16 + 7]
    expected = np.concatenate([[s * -127] * 16 + [s * 1] * 16 for s in scales])
    check(GGMLType.IQ4_XS, ONE + high + low + 128 * b"\x80", expected)


def test_iq2_xxs():
    first = 2 * 3.5 / 4 * np.array([8, 25, 43])[EIGHTS] * SIGNS
    expected = [*first.ravel(), *[2 * 0.5 / 4 * 8] * 224]
    check(GGMLType.IQ2_XXS, TWO + bytes([0, 1, 2, 3]) + SIGN_WORD + bytes(56), expected)


def test_iq2_xs():
    words = np.array([0, 1 | 1 << 9, 2 | 127 << 9, 3 | 2 << 9] + [0] * 28, "<u2")
    first = 2 / 4 * np.repeat([[1.5], [3.5]], 2, 0) * np.array([8, 25, 43])[EIGHTS] * SIGNS
    expected = [*first.ravel(), *[2 * 0.5 / 4 * 8] * 224]
    check(GGMLType.IQ2_XS, TWO + words.tobytes() + b"\x31" + bytes(7), expected)


def test_iq2_s():
    first = 2 / 4 * np.repeat([[1.5], [3.5]], 2, 0) * np.array([8, 25, 43])[EIGHTS] * SIGNS
    low, signs = bytes([0, 1, 2, 3]) + bytes(28), bytes(SIGN_BITS.tolist()) + bytes(28)
    expected = [*first.ravel(), *[2 * 0.5 / 4 * 8] * 224]
    check(GGMLType.IQ2_S, TWO + low + signs + bytes(8) + b"\x31" + bytes(7), expected)


def test_iq3_xxs():
    points = np.array([[4, 4, 4, 4, 20, 4, 4, 4], [36, 4, 4, 4, 12, 12, 4, 4]] * 2)  # 0, 1; 2, 3
    expected = [*(2 * 3.5 / 2 * points * SIGNS).ravel(), *[2 * 0.5 / 2 * 4] * 224]
    check(GGMLType.IQ3_XXS, TWO + bytes([0, 1, 2, 3] * 2) + bytes(56) + SIGN_WORD + bytes(28), expected)


def test_iq3_s():
    points = np.array([[1, 1, 1, 1, 3, 1, 1, 1], [5, 1, 1, 1, 11, 1, 1, 1]] * 2)  # 0, 1; 2, 3
    signs = bytes(SIGN_BITS.tolist()) + bytes(28)
    expected = [*(2 * 3 * points * SIGNS).ravel(), *[2 * 7] * 32, *[2] * 192]
    check(GGMLType.IQ3_S, TWO + bytes([0, 1, 2, 3] * 2) + bytes(56) + bytes(8) + signs + b"\x31" + bytes(3), expected)


def test_iq1_s():
    first = 2 * 7 * (EIGHTS - 1 - 0.125)
    words = np.array([0x8000 | 3 << 12] + [0] * 7, "<u2")
    expected = [*first.ravel(), *[2 * (-1 + 0.125)] * 224]
    check(GGMLType.IQ1_S, TWO + bytes([0, 1, 2, 3]) + bytes(28) + words.tobytes(), expected)


def test_iq1_m():
    shifts = np.array([[0.125], [-0.125], [-0.125], [0.125]])
    first = 2 * np.array([[3], [3], [7], [7]]) * (EIGHTS - 1 + shifts)
    words = np.array([1 | 3 << 3, 0, 0, 0x4000], "<u2")  # the upper four bits of each: 2.0 as a float16
    expected = [*first.ravel(), *[2 * (-1 + 0.125)] * 224]
    check(GGMLType.IQ1_M, bytes([0, 1, 2, 3]) + bytes(28) + b"\x80\x08" + bytes(14) + words.tobytes(), expected)


@pytest.mark.parametrize(("e", "power"), [(128, 0), (127, -1), (2, -126), (1, -127), (0, -128), (252, 124), (255, 127)])
def test_mxfp4(e: int, power: int):
    with np.errstate(over="ignore"):
        expected = np.float32(2.0**power) * np.r_[E2M1_DOUBLED, E2M1_DOUBLED[::-1]].astype(np.float32)
    check(GGMLType.MXFP4, bytes([e]) + NIBBLES, expected)


def test_every_layout_has_the_size_of_the_type_table():
    assert {t: (c.type, c.block_size, c.block_bytes) for t, c in CODECS.items()} == {
        t: (t, t.block_size, t.block_bytes) for t in CODECS
    }
    assert all(c.block.itemsize == c.block_bytes for c in CODECS.values())


def test_a_layout_of_the_wrong_size_is_refused():
    with pytest.raises(AssertionError, match="I8"):

        class Wrong(codec.BlockCodec, ggml=GGMLType.I8):
            block = np.dtype([("d", "<f2")])

    assert GGMLType.I8 not in CODECS


def encode(x: np.ndarray, ggml_type: GGMLType) -> np.ndarray:
    """With an importance where the type needs one."""
    given = np.ones(x.shape[-1], np.float32) if ggml_type.name in NEED_IMPORTANCE else None
    return CODECS[ggml_type].encode(x, given)


def scaled_blocks(ggml_type: GGMLType, scale: float) -> np.ndarray:
    """256 blocks of random codes whose float16 fields all hold `scale`."""
    data = random_blocks(ggml_type, (256, CODECS[ggml_type].block_size), np.random.default_rng(3))
    blocks = data.view(CODECS[ggml_type].block)
    store_scales(blocks, scale)
    for name in {"dmin", "m"} & set(blocks.dtype.names or ()):
        blocks[name] = scale
    return data


@pytest.mark.parametrize("ggml_type", HALF_SCALED, ids=lambda t: t.name)
def test_scales_of_zero_nan_infinity_and_the_maximum(ggml_type: GGMLType):
    assert not decode(scaled_blocks(ggml_type, 0.0), ggml_type).any()
    assert np.isnan(decode(scaled_blocks(ggml_type, np.nan), ggml_type)).all()
    assert not np.isfinite(decode(scaled_blocks(ggml_type, np.inf), ggml_type)).all()
    largest = decode(scaled_blocks(ggml_type, 65504.0), ggml_type)
    assert np.isfinite(largest).all()
    assert np.abs(largest).max() >= 65504


def test_an_unknown_type_is_named_with_the_known_ones():
    with pytest.raises(UnsupportedError, match=r"I64.*F32, F16, Q4_0.*MXFP4, NVFP4"):
        codec_for(GGMLType.I64)
    with pytest.raises(UnsupportedError, match="77"):
        codec_for(77)  # type: ignore[arg-type]


@pytest.mark.parametrize("ggml_type", TYPES, ids=lambda t: t.name)
def test_a_row_that_is_not_whole_blocks(ggml_type: GGMLType):
    c = CODECS[ggml_type]
    with pytest.raises(CodecError, match=f"{ggml_type.name}.*{3 * c.block_bytes + 1} bytes") as caught:
        c.decode(np.zeros((2, 3 * c.block_bytes + 1), np.uint8))
    assert isinstance(caught.value, HalfbyteError)


def test_rows_of_weights_that_are_not_whole_blocks():
    with pytest.raises(CodecError, match=r"Q8_0.*100 weights"):
        CODECS[GGMLType.Q8_0].encode(np.zeros((2, 100), np.float32))


def test_other_array_types_and_no_dimension():
    q8_0 = CODECS[GGMLType.Q8_0]
    with pytest.raises(CodecError, match=r"uint8.*int8"):
        q8_0.decode(np.zeros(34, np.int8))
    with pytest.raises(CodecError, match=r"float32.*float64"):
        q8_0.encode(np.zeros(32))  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="dimension"):
        q8_0.decode(np.zeros((), np.uint8))


@pytest.mark.parametrize("shape", [(0,), (0, 4096), (3, 0), (2, 0, 4096)])
def test_empty_arrays(shape: tuple[int, ...]):
    for c in CODECS.values():
        data = np.zeros(c.byte_shape(shape), np.uint8)
        assert c.decode(data).shape == shape
        assert c.encode(np.zeros(shape, np.float32)).shape == data.shape


@pytest.mark.parametrize("ggml_type", TYPES, ids=lambda t: t.name)
def test_strides_and_chunk_borders_change_nothing(ggml_type: GGMLType, monkeypatch: pytest.MonkeyPatch):
    c = CODECS[ggml_type]
    data = random_blocks(ggml_type, (3, 5, 7 * 256), np.random.default_rng(5))
    data.flags.writeable = False
    whole = c.decode(data)
    middle = slice(2 * c.block_bytes, -3 * c.block_bytes)
    columns = slice(2 * c.block_size, -3 * c.block_size)
    for chunk in (1, 600, 4000, codec.CHUNK_WEIGHTS):  # in turn: less than a block, parts of a row, rows, everything
        monkeypatch.setattr(codec, "CHUNK_WEIGHTS", chunk)
        if chunk == 1 and c.block_size == 1:
            continue  # one call per weight: right, but slow
        np.testing.assert_array_equal(c.decode(data), whole)
        np.testing.assert_array_equal(c.decode(data[::2, ::-1, middle]), whole[::2, ::-1, columns])
        np.testing.assert_array_equal(c.decode(data.transpose(1, 0, 2)), whole.transpose(1, 0, 2))
        np.testing.assert_array_equal(c.decode(data[1, 2]), whole[1, 2])
    mixed = np.asfortranarray(data)  # even the bytes of one block are not neighbours
    np.testing.assert_array_equal(c.decode(mixed), whole)


@pytest.mark.parametrize("ggml_type", TYPES, ids=lambda t: t.name)
def test_decoding_needs_little_memory_beside_the_result(ggml_type: GGMLType):
    c = CODECS[ggml_type]
    data = np.zeros((2, 64, c.byte_shape((1 << 15,))[0]), np.uint8)[:, ::2]  # 2 Mi weights, strided
    c.decode(data[:1, :1])  # tables are made once
    tracemalloc.start()
    try:
        out = c.decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - out.nbytes < 5 << 20


@pytest.mark.parametrize("ggml_type", CODED, ids=lambda t: t.name)
def test_encoders_refuse_what_is_no_number(ggml_type: GGMLType):
    for value in (np.nan, np.inf, -np.inf):
        x = np.zeros((2, 3, 512), np.float32)
        x[1, 2, 300] = value
        with pytest.raises(CodecError, match=rf"{ggml_type.name}: weight 300 of row 5 is -?(nan|inf)"):
            CODECS[ggml_type].encode(x)


@pytest.mark.parametrize("ggml_type", HALF_SCALED, ids=lambda t: t.name)
def test_encoders_refuse_what_their_scale_cannot_hold(ggml_type: GGMLType):
    x = np.zeros((2, 256), np.float32)
    x[1, 40] = 3e38
    with pytest.raises(CodecError, match=rf"{ggml_type.name}.*float16"):
        encode(x, ggml_type)


def test_tiny_weights_become_zero_not_garbage():
    for ggml_type in CODED:
        x = np.linspace(-1e-42, 2e-42, 256, dtype=np.float32)  # 1 / scale overflows
        assert not np.abs(decode(encode(x, ggml_type), ggml_type)).max() > 1e-7


@pytest.mark.parametrize("ggml_type", EXACT, ids=lambda t: t.name)
def test_decoding_undoes_encoding_once_encoded(ggml_type: GGMLType):
    """decode(encode(w)) == w for weights that an encoder produced: a second conversion loses nothing more."""
    c = CODECS[ggml_type]
    rng = np.random.default_rng(11)
    x = (rng.standard_normal((64, 512)) * rng.uniform(0.001, 10, (64, 1))).astype(np.float32)
    once = c.decode(c.encode(x))
    np.testing.assert_array_equal(c.decode(c.encode(once)), once)
    # And it is not trivially constant. MXFP4 makes 6 of all from 6 to 8 times its power of two.
    assert np.abs(once - x).max() < np.abs(x).max() / (3 if ggml_type is GGMLType.MXFP4 else 8)


@pytest.mark.parametrize("ggml_type", TYPES, ids=lambda t: t.name)
def test_random_blocks_look_like_weights(ggml_type: GGMLType):
    w = decode(random_blocks(ggml_type, (64, 512), np.random.default_rng(1)), ggml_type)
    assert w.shape == (64, 512)
    assert np.isfinite(w).all()
    assert 0.02 < w.std() < 0.05
    assert abs(w.mean()) < 0.003
