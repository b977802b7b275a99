"""NF4, FP4, double quantization and LLM.int8 against bitsandbytes: frozen results; live ones where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.gguf.kinds import KINDS
from halfbyte.formats.gguf.nested import dynamic_map, nest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import CodecError, codec_for, decode
from halfbyte.formats.quants.bnb import FourBitWeight
from halfbyte.formats.quants.four_bit import dequantize_flat, quantize_flat
from halfbyte.formats.quants.int8 import quantize_rows
from halfbyte.formats.quants.reversible import from_q8_0, to_q8_0

from tests.bnb_inputs import CASES, crc, int8_rows, weights

EXPECTED = json.loads((Path(__file__).parents[1] / "fixtures/bitsandbytes.json").read_text(encoding="utf-8"))


def found(codes: str, size: int, n: int, offset: float) -> dict[str, Any]:
    """Ours, in the form of the fixture."""
    own, absmax = quantize_flat(weights(n), codes, size)
    padded = np.append(own, np.full(n % 2, {"nf4": 7, "fp4": 0}[codes], np.uint8))
    nested = nest(absmax, np.float32(offset))
    packed = padded[::2] << 4 | padded[1::2]
    return {
        "codes": [*crc(packed, absmax)], "nested": [*crc(nested.codes, nested.absmax)], "offset": offset
    }  # fmt: skip


def test_the_same_codes_as_bitsandbytes() -> None:
    assert len(EXPECTED["cases"]) == len(CASES)
    for case, expected in zip(CASES, EXPECTED["cases"], strict=True):
        assert found(*case, expected["offset"]) == expected, case
    assert [*crc(dynamic_map())] == EXPECTED["map"]
    assert [*crc(*quantize_rows(int8_rows()))] == EXPECTED["int8"]


def test_the_offset_is_the_mean_up_to_the_order_of_a_sum() -> None:
    for (codes, size, n), expected in zip(CASES, EXPECTED["cases"], strict=True):
        _, absmax = quantize_flat(weights(n), codes, size)
        assert abs(nest(absmax).offset - expected["offset"]) <= 4 * np.spacing(np.float32(expected["offset"]))


def test_a_changed_rule_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from halfbyte.formats.quants import four_bit

    borders, order = four_bit._borders("nf4")
    monkeypatch.setattr(four_bit, "_borders", lambda codes: (np.nextafter(borders, np.float32(2)), order))
    x = four_bit.levels_of("nf4")
    middle = np.append((x[:-1] + x[1:]) / np.float32(2), np.float32(1))
    assert (four_bit.nearest_codes(np.nextafter(middle, np.float32(2)), "nf4")[:-1] == np.arange(15)).all()
    monkeypatch.undo()
    assert (four_bit.nearest_codes(np.nextafter(middle, np.float32(2)), "nf4")[:-1] == np.arange(1, 16)).all()


def test_live() -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed; frozen results are checked without it")
    from tests.fixtures.make.bnb import all_expected

    live = all_expected()
    for case, one in zip(CASES, live["cases"], strict=True):
        assert found(*case, one["offset"]) == one, case
    assert live["map"] == EXPECTED["map"]
    assert live["int8"] == EXPECTED["int8"]


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.text)
def test_checkpoints_and_files_hold_the_same(kind: Any) -> None:
    x = weights(3 * 8192).reshape(3, 8192).astype(np.float16).astype(np.float32)
    codes, absmax = quantize_flat(x, kind.codes, kind.block)
    weight = FourBitWeight(kind, x.shape, "float16", codes, nest(absmax) if kind.nested else absmax)
    tensors = weight.to_checkpoint()
    again = FourBitWeight.from_checkpoint(tensors)
    assert again.is_exact_in_files
    raw, companion = again.to_file()
    back = FourBitWeight.from_file(kind, raw, again.dtype, companion, dynamic_map() if kind.nested else None)
    for name, array in back.to_checkpoint().items():
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)
    if not kind.nested:
        np.testing.assert_array_equal(decode(raw, kind.type), weight.weights())
        np.testing.assert_array_equal(codec_for(kind.type).encode(x), raw)


def test_blocks_that_cross_rows() -> None:
    x = weights(7 * 96).reshape(7, 96)
    codes, absmax = quantize_flat(x, "nf4", 64)
    weight = FourBitWeight(KINDS[GGMLType.NF4], (7, 96), "float32", codes, absmax)
    again = FourBitWeight.from_checkpoint(weight.to_checkpoint())
    np.testing.assert_array_equal(again.weights(), dequantize_flat(codes, absmax, "nf4", 64).reshape(7, 96))
    assert not again.fits_rows and not again.is_exact_in_files
    with pytest.raises(CodecError, match="96 weights are not whole blocks of 64"):
        again.to_file()


STATE = "quant_state.bitsandbytes__nf4"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("", np.zeros(3, np.uint8), "3 bytes for 128 weights"),
        ("absmax", np.zeros(3, np.float32), "3 absmaxes for 2 blocks"),
        ("quant_map", np.zeros(16, np.float32), "levels"),
        (STATE, np.zeros(2, np.uint8), "not JSON"),
        (STATE, np.frombuffer(b'{"quant_type": "nf4", "blocksize": 65, "shape": [1, 128]}', np.uint8), "65"),
        (STATE, np.frombuffer(b'{"quant_type": "nf4", "blocksize": 64, "shape": [-1, 128]}', np.uint8), "shape"),
        ("absmax", None, "lacks 'absmax'"),
    ],
)
def test_checkpoints_that_contradict_themselves(name: str, value: Any, message: str) -> None:
    codes, absmax = quantize_flat(weights(128), "nf4", 64)
    tensors = FourBitWeight(KINDS[GGMLType.NF4], (1, 128), "float32", codes, absmax).to_checkpoint()
    changed = {k: v for k, v in (tensors | {name: value}).items() if v is not None}
    with pytest.raises(CodecError, match=message):
        FourBitWeight.from_checkpoint(changed)


@pytest.mark.parametrize("kind", [k for k in KINDS.values() if k.block >= 64 and not k.nested], ids=lambda k: k.text)
def test_q8_0_and_back(kind: Any) -> None:
    x = weights(3 * 8192).reshape(3, 8192)
    rows = codec_for(kind.type).encode(x)
    as_q8_0, small = to_q8_0(rows, kind), GGMLType[kind.codes.upper()]
    back = from_q8_0(as_q8_0, small)
    assert back is not None
    weights_, again = decode(rows, kind.type), decode(back, small)
    assert np.abs(again - weights_).max() <= 2**-10 * np.abs(weights_).max()  # of the absmax, rounded twice
    assert np.array_equal(again == 0, weights_ == 0)
    assert np.abs(decode(as_q8_0, GGMLType.Q8_0) - weights_).max() <= np.abs(x).max() * (0.5 / 127 + 2**-10)
    for at, value in ((2, 11), (34, 0), (0, 1)):  # a level that is none; the second scale, a bit of it; the first
        wrong = as_q8_0.copy()
        wrong[1, at] = wrong[1, at] ^ value if at != 2 else value
        if at != 34:
            assert from_q8_0(wrong, small) is None
    assert from_q8_0(as_q8_0[:, :34], small) is None


@pytest.mark.parametrize(("size", "expected"), [(32, 0.0874), (64, 0.0920)])
def test_errors_on_normal_weights(size: int, expected: float) -> None:
    x = np.random.default_rng(8).standard_normal((64, 8192)).astype(np.float32)
    kind = next(k for k in KINDS.values() if (k.codes, k.block, k.nested) == ("nf4", size, False))
    off = decode(codec_for(kind.type).encode(x), kind.type) - x
    assert abs(np.linalg.norm(off) / np.linalg.norm(x) - expected) < 4e-4
