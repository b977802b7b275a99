"""Linear quantization: rules written down a second time, what theory says of errors, packing, and bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CODECS, CodecError, NotFiniteError, linear
from halfbyte.formats.quants.accuracy import errors
from halfbyte.formats.quants.linear import RULES, Parameters, Rule, Scheme, dequantize, parameters, quantize, scheme

F = np.float32


@pytest.fixture
def w() -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((5, 96)).astype(F)
    x[1], x[2] = np.abs(x[1]) + F(0.5), x[2] - F(9)
    return x


def gptq(x: np.ndarray, bits: int) -> np.ndarray:
    top, low, high = F(2**bits - 1), min(x.min(), F(0)), max(x.max(), F(0))
    s = (high - low) / top
    z = np.round(-low / s)
    return s * (np.clip(np.round(x / s) + z, 0, top) - z)


def gptq_symmetric(x: np.ndarray, bits: int) -> np.ndarray:
    top, most = F(2**bits - 1), np.abs(x).max()
    s, z = (most + most) / top, F(2 ** (bits - 1))
    return s * (np.clip(np.round(x / s) + z, 0, top) - z)


def awq(x: np.ndarray, bits: int) -> np.ndarray:
    top = F(2**bits - 1)
    s = max(x.max() - x.min(), F(1e-5)) / top
    z = np.clip(-np.round(x.min() / s), 0, top)
    return (np.clip(np.round(x / s) + z, 0, top) - z) * s


def awq_symmetric(x: np.ndarray, bits: int) -> np.ndarray:
    top = F(2 ** (bits - 1) - 1)
    s = max(np.abs(x).max(), F(1e-5)) / top
    return np.clip(np.round(x / s), -top - 1, top) * s


def deepspeed(x: np.ndarray, bits: int) -> np.ndarray:
    s = (x.max() - x.min()) / F(2**bits)
    z = np.round(x.min() / s) * s
    return np.clip(np.round((x - z) / s), 0, F(2**bits - 1)) * s + z


def deepspeed_symmetric(x: np.ndarray, bits: int) -> np.ndarray:
    s = 2 * np.abs(x).max() / F(2**bits)
    return np.clip(np.round(x / s), -F(2 ** (bits - 1)), F(2 ** (bits - 1) - 1)) * s


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("rule", [gptq, gptq_symmetric, awq, awq_symmetric, deepspeed, deepspeed_symmetric])
def test_rules_as_their_authors_write_them(rule: Callable[..., np.ndarray], bits: int, w: np.ndarray) -> None:
    for per, groups in (("tensor", [w]), ("row", list(w)), (32, list(w.reshape(-1, 32)))):
        found = linear.round_trip(w, scheme(rule.__name__, bits, per))  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.reshape(-1), np.concatenate([rule(x, bits).reshape(-1) for x in groups]))


def test_ggml_blocks_are_this_with_a_shorter_scale() -> None:
    """Of 100 000 weights, whose ties are too rare to meet one: the codes of Q4_0, and a scale before it is rounded."""
    x = np.random.default_rng(2).standard_normal((1000, 96)).astype(F)
    for ggml_type, bits in ((GGMLType.Q4_0, 4), (GGMLType.Q8_0, 8)):
        blocks = CODECS[ggml_type].encode(x).reshape(-1, ggml_type.block_bytes)
        rule = scheme("ggml" if bits == 4 else "symmetric", bits, per=32)
        found = parameters(x, rule)
        codes = quantize(x, rule, found).reshape(-1, 32)
        np.testing.assert_array_equal(found.scale.reshape(-1).astype("<f2"), blocks[:, :2].copy().view("<f2")[:, 0])
        packed = linear.stripe(codes.T, 4).T if bits == 4 else codes.view(np.uint8)
        np.testing.assert_array_equal(packed, blocks[:, 2:])


def test_errors_are_as_theory_says() -> None:
    """Uniform weights: an error of any size up to half a step is as likely as another, and a bit is worth 6.02 dB."""
    x = np.random.default_rng(3).uniform(-1, 1, (10, 20_000)).astype(F)
    sqnr = []
    for bits in range(2, 9):
        found = parameters(x, scheme("affine", bits, "tensor"))
        off = dequantize(quantize(x, scheme("affine", bits, "tensor"), found), found) - x
        step = found.scale.item()
        assert np.abs(off).max() <= step * 0.501 + 1e-6 or bits < 4  # a rounded zero moves all codes
        sqnr.append(errors(x, x + off).sqnr)
    assert np.mean(np.diff(sqnr[2:])) == pytest.approx(20 * math.log10(2), abs=0.3)
    shifted = linear.round_trip(x, scheme("quanto", 4, "tensor")) - x
    step = parameters(x, scheme("quanto", 4, "tensor")).scale.item()
    assert float((shifted.astype(float) ** 2).mean()) == pytest.approx(step**2 / 12, rel=0.02)


def test_columns_in_any_order(w: np.ndarray) -> None:
    """As GPTQ does it with act-order: groups of columns that are no neighbours."""
    rule, order = scheme("gptq", 4, 32), np.random.default_rng(4).permutation(96)
    found = parameters(w[:, order], rule)
    codes = quantize(w[:, order], rule, found)
    back = np.argsort(order)
    expected = dequantize(codes, found)[:, back]
    np.testing.assert_array_equal(dequantize(codes[:, back], found.columns(back // 32)), expected)
    for wrong in (back // 16, back[None] // 32, back / 32, back // 32 - 1):
        with pytest.raises(CodecError, match="group of each column is an integer from 0 to 2"):
            found.columns(wrong)


@pytest.mark.parametrize("bits", range(2, 9))
def test_packing(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (3, 5, 11)).astype(np.uint8)
    stream = linear.pack(codes, bits)
    number = sum(int(code) << bits * i for i, code in enumerate(codes[2, 4]))  # the row as one long number
    assert bytes(stream[2, 4]) == number.to_bytes(-(-11 * bits // 8), "little")
    np.testing.assert_array_equal(linear.unpack(stream, bits, 11), codes)
    for word in (np.uint8, np.uint32):
        for first_is_high in (False, True):
            words = linear.stripe(codes, bits, word, first_is_high=first_is_high)
            np.testing.assert_array_equal(linear.unstripe(words, bits, 3, first_is_high=first_is_high), codes)


def test_packing_of_gptq_and_awq() -> None:
    """As their files have it: words of 32 bits along the inputs, codes of 3 bits across words; nibbles out of order."""
    codes = np.random.default_rng(5).integers(0, 8, (2, 32)).astype(np.uint8)
    words = linear.pack(codes, 3).view("<u4")
    q = codes[1].astype(int)
    first = sum(q[i] << 3 * i for i in range(10)) | (q[10] & 3) << 30
    second = q[10] >> 2 | sum(q[11 + i] << 3 * i + 1 for i in range(10)) | (q[21] & 1) << 31
    third = q[21] >> 1 | sum(q[22 + i] << 3 * i + 2 for i in range(10))
    assert words[1].tolist() == [first, second, third]
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    awq_words = linear.pack(codes.reshape(2, -1, 8)[..., order].reshape(2, -1), 4).view("<u4")
    assert awq_words[1, 0] == sum(q[column] << 4 * nibble for nibble, column in enumerate(order))


def test_zero_ranges() -> None:
    """Equal weights: exact where a rule can, and never NaN."""
    zeros, ones = np.zeros((2, 32), F), np.full((2, 32), 3, F)
    for name in RULES:
        np.testing.assert_array_equal(linear.round_trip(zeros, scheme(name, 4)), zeros, name)
        assert np.isfinite(linear.round_trip(ones, scheme(name, 4))).all(), name
    for name in ("affine", "symmetric", "quanto", "torch_float_zero", "ggml"):
        np.testing.assert_allclose(linear.round_trip(ones, scheme(name, 4)), ones, rtol=1e-6, err_msg=name)


def test_weights_at_the_ends_of_float32() -> None:
    tiny = np.full((1, 32), 1e-44, F)
    tiny[0, 0] = -1e-44
    for name in RULES:
        assert np.abs(linear.round_trip(tiny, scheme(name, 4))).max() <= 1e-37, name
    huge = np.full((1, 32), 3e38, F)
    huge[0, 0] = -3e38
    with pytest.raises(CodecError, match=r"from -3e\+38 to 3e\+38 is too far"):
        parameters(huge, scheme("affine", 4))
    assert np.isfinite(linear.round_trip(huge, scheme("symmetric", 4))).all()


@pytest.mark.parametrize(
    ("array", "per", "words"),
    [
        (np.float32([[1, np.nan]]), "row", "weight 1 of row 0 is nan"),
        (np.float32([[1, 2], [np.inf, 1]]), "tensor", "weight 0 of row 1 is inf"),
        (np.zeros((0, 32), F), "tensor", r"\(0, 32\) has no weights"),
        (np.zeros((3, 0), F), 32, r"\(3, 0\) has no weights"),
        (np.zeros((), F), "row", "has no weights in rows"),
        (np.zeros((2, 48), F), 32, "a row of 48 weights is not a whole number of groups"),
        (np.zeros((2, 32)), 32, "expected an array of float32, got float64"),
        (np.zeros((2, 32), np.int8), 32, "expected an array of float32, got int8"),
    ],
)
def test_bad_weights(array: np.ndarray, per: Any, words: str) -> None:
    rule = scheme("affine", 4, per)
    one = Parameters(np.ones((1,) * array.ndim, F))
    calls: list[Callable[[], object]] = [lambda: parameters(array, rule)]
    if "groups" not in words:
        calls.append(lambda: quantize(array, rule, one))
    for call in calls:
        with pytest.raises(NotFiniteError if "is nan" in words or "is inf" in words else CodecError, match=words):
            call()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: scheme("affine", 1), "2 to 8 bits, not 1"),
        (lambda: scheme("affine", 9), "2 to 8 bits, not 9"),
        (lambda: scheme("affine", 4.0), "2 to 8 bits, not 4.0"),  # type: ignore[arg-type]
        (lambda: scheme("affine", 4, 0), "neighbours, not 0"),
        (lambda: scheme("affine", 4, "column"), "neighbours, not 'column'"),  # type: ignore[arg-type]
        (lambda: scheme("gtpq", 4), "no rule 'gtpq'; did you mean gptq"),
        (lambda: Scheme(Rule("-max..max", zero="float"), 4), "cannot be a float"),
        (lambda: Scheme(Rule("min..max", zero="shift", signed=True), 4), "cannot be signed"),
        (lambda: Rule("min..max", rounding="up"), "unknown rounding 'up'"),
        (lambda: linear.pack(np.uint8([[4]]), 2), "codes from 4 to 4 do not fit 2 bits"),
        (lambda: linear.pack(np.int8([[-1]]), 2), "codes from -1 to -1 do not fit"),
        (lambda: linear.pack(np.float32([[1]]), 2), "codes are integers"),
        (lambda: linear.pack(np.uint8([[1]]), 9), "2 to 8 bits, not 9"),
        (lambda: linear.unpack(np.zeros((1, 3), np.uint8), 3, 9), "3 bytes do not hold 9 codes of 3 bits"),
        (lambda: linear.unpack(np.zeros((1, 3), np.uint8), 3, -1), "do not hold -1"),
        (lambda: linear.unpack(np.zeros((1, 3), np.int32), 3, 8), "rows of uint8, not int32"),
        (lambda: linear.unstripe(np.zeros((2, 3), np.uint8), 4, 5), "2 words hold 4 codes of 4 bits, not 5"),
        (lambda: linear.unstripe(np.zeros((2, 3), np.int8), 4, 4), "unsigned integers"),
    ],
)
def test_bad_requests(make: Callable[[], object], words: str) -> None:
    with pytest.raises(CodecError, match=words):
        make()


def test_bad_parameters() -> None:
    one, codes = np.ones((2, 3), F), np.zeros((2, 96), np.uint8)
    for make, words in (
        (lambda: Parameters(one * np.nan), "a scale is NaN or infinite"),
        (lambda: Parameters(one, np.ones((2, 1), np.int32)), r"\(2, 3\) with a zero of shape \(2, 1\)"),
        (lambda: Parameters(one, np.full((2, 3), 1 << 40)), "beyond 16,777,216"),
        (lambda: Parameters(one, one, one), "not both"),
        (lambda: Parameters(one.astype(np.float16)), "a scale is float32, not float16"),
        (lambda: Parameters(one, np.ones((2, 3))), "a zero is float32 or an integer, not float64"),
        (lambda: dequantize(codes, Parameters(one[:, :0])), r"\(2, 0\) do not fit an array of shape \(2, 96\)"),
        (lambda: dequantize(codes[:, :95], Parameters(one)), "do not fit"),
        (lambda: dequantize(codes[0], Parameters(one)), "do not fit"),
        (lambda: dequantize(np.zeros((3, 96), np.uint8), Parameters(one)), "do not fit"),
        (lambda: dequantize(codes.astype(F), Parameters(one)), "codes are integers, not float32"),
        (lambda: quantize(codes.astype(F), scheme("affine", 4), Parameters(0 * one)), "a scale is 0"),
    ):
        with pytest.raises(CodecError, match=words):
            make()
    assert np.isinf(dequantize(codes + np.uint8(255), Parameters(one * F(3e38)))).all()


def test_errors_of_arrays(w: np.ndarray) -> None:
    y = w.copy()
    y[:, 0] /= 2
    assert errors(w, y).largest == float(np.abs(w - y).max()) and errors(w, w).sqnr == math.inf
    for x, z, block in ((w, w[:1], None), (w, w.astype(float), None), (w, w, 64), (w, w, 0)):
        with pytest.raises(CodecError):
            errors(x, z, block)
