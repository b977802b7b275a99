"""FP8 checkpoints: codes times scales, in every shape that scales have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.converters.checkpoint import Checkpoint, CheckpointError
from halfbyte.converters.rows import Rows
from halfbyte.converters.weights import weights
from halfbyte.formats.errors import UnsupportedError
from halfbyte.formats.gguf import GGMLType
from halfbyte.formats.stored import E4M3, E5M2

from .checkpoints import safetensors

Tensors = Mapping[str, tuple[str, np.ndarray]]
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [4, 8]}


def _folder(tmp_path: Path, tensors: Tensors, quantization: object = None) -> Path:
    config = {"architectures": ["LlamaForCausalLM"], **({"quantization_config": quantization} if quantization else {})}
    (tmp_path / "config.json").write_text(json.dumps(config))
    arrays = {name: array for name, (_, array) in tensors.items()}
    dtypes = {name: dtype for name, (dtype, _) in tensors.items()}
    (tmp_path / "model.safetensors").write_bytes(safetensors(arrays, dtypes))
    return tmp_path


def _codes(*shape: int, seed: int = 1) -> np.ndarray:
    codes = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    codes[(codes & 0x7F) >= 0x7C] = 0x3C  # neither NaN nor infinity in either form
    return codes


def _scales(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).lognormal(0, 1, shape).astype(np.float32)


def _read(tmp_path: Path, tensors: Tensors, quantization: object = None) -> dict[str, Rows]:
    return weights(Checkpoint.open(_folder(tmp_path, tensors, quantization)))


@pytest.mark.parametrize("step", [1, 3, 100])
def test_scales_of_blocks(tmp_path: Path, step: int) -> None:
    """Rows and columns that are no whole blocks; scales multiply, whatever their name says."""
    codes, scale = _codes(10, 20), _scales(3, 3)
    given = {"a.weight": ("F8_E4M3", codes), "a.weight_scale_inv": ("F32", scale)}
    found = _read(tmp_path, given, FP8)
    assert list(found) == ["a.weight"]
    rows = found["a.weight"]
    wanted = E4M3[codes] * np.kron(scale, np.ones((4, 8), np.float32))[:10, :20]
    read = [rows.floats(first, min(10, first + step)) for first in range(0, 10, step)]
    np.testing.assert_array_equal(np.concatenate(read), wanted)
    assert rows.type is GGMLType.F32 and rows.kept is GGMLType.BF16


@pytest.mark.parametrize(
    ("shape", "scale_shape", "dtype"),
    [
        ((6, 8), (), "F8_E4M3"), ((6, 8), (1,), "F8_E5M2"), ((6, 8), (1, 1), "F8_E4M3"),
        ((6, 8), (6,), "F8_E4M3"), ((6, 8), (6, 1), "F8_E5M2"),
        ((3, 6, 8), (3,), "F8_E4M3"), ((3, 6, 8), (3, 1, 1), "F8_E4M3"), ((3, 6, 8), (3, 6, 1), "F8_E4M3"),
    ],
)  # fmt: skip
def test_scales_of_rows_tensors_and_experts(
    tmp_path: Path, shape: tuple[int, ...], scale_shape: tuple[int, ...], dtype: str
) -> None:
    codes, scale = _codes(*shape), _scales(*scale_shape)
    given = {
        "m.experts.up": (dtype, codes), "m.experts.up_scale": ("F32", scale),
        "m.input_scale": ("F32", _scales(1)), "m.k_scale": ("F32", _scales(1)),
    }  # fmt: skip
    found = _read(tmp_path, given, {"quant_method": "compressed-tensors", "format": "float-quantized"})
    assert list(found) == ["m.experts.up"]
    rows = found["m.experts.up"]
    wide = scale.reshape(scale.shape + (1,) * (len(shape) - scale.ndim) if scale.ndim else (1,) * len(shape))
    wanted = (E5M2 if dtype == "F8_E5M2" else E4M3)[codes] * wide
    np.testing.assert_array_equal(rows.floats(0, rows.n_rows), wanted.reshape(-1, shape[-1]))


def test_blocks_of_experts(tmp_path: Path) -> None:
    codes, scale = _codes(2, 5, 16), _scales(2, 2, 2)
    given = {"up": ("F8_E4M3", codes), "up_scale_inv": ("F32", scale)}
    rows = _read(tmp_path, given, FP8)["up"]
    wanted = E4M3[codes] * np.kron(scale, np.ones((1, 4, 8), np.float32))[:, :5]
    np.testing.assert_array_equal(rows.floats(3, 8), wanted.reshape(10, 16)[3:8])


def test_scales_that_are_powers_of_two(tmp_path: Path) -> None:
    given = {"a.weight": ("F8_E4M3", _codes(4, 8)), "a.weight_scale_inv": ("F8_E8M0", np.array([[130]], np.uint8))}
    found = _read(tmp_path, given, FP8)["a.weight"].floats(0, 4)
    np.testing.assert_array_equal(found, E4M3[_codes(4, 8)] * np.float32(8))


def test_plain_eight_bits(tmp_path: Path) -> None:
    """Without a word about scales, codes are the weights."""
    found = _read(tmp_path, {"a.weight": ("F8_E5M2", _codes(4, 8))})["a.weight"]
    np.testing.assert_array_equal(found.floats(1, 3), E5M2[_codes(4, 8)][1:3])


_WEIGHT: Tensors = {"a.weight": ("F8_E4M3", _codes(8, 16))}
_SCALED: Tensors = {"b.weight": ("F8_E4M3", _codes(8, 16)), "b.weight_scale": ("F32", _scales(1))}
_INF = np.full((2, 2), np.inf, np.float32)


@pytest.mark.parametrize(
    ("tensors", "quantization", "words"),
    [
        (_WEIGHT, FP8, "its scale is missing"),
        ({**_WEIGHT, "a.weight_scale_inv": ("F32", _scales(3, 2))}, FP8, r"\(3, 2\) do not fit 'a.weight' .*\(8, 16\)"),
        ({**_WEIGHT, "a.weight_scale_inv": ("F32", _scales(2, 3))}, FP8, r"allowed: \(2, 2\)\)$"),
        ({**_WEIGHT, "a.weight_scale_inv": ("F32", _scales(1, 1))}, FP8, r"\(1, 1\) do not fit 'a.weight'"),
        ({**_WEIGHT, "a.weight_scale": ("F32", _scales(7))}, None, r"allowed: \(1, 1\), one for each row, or one"),
        ({**_WEIGHT, "a.weight_scale": ("F32", _INF)}, FP8, "finite numbers are needed"),
        ({**_WEIGHT, "a.weight_scale": ("I32", np.ones((2, 2), np.int32))}, FP8, "finite numbers are needed"),
        ({"up": ("F8_E4M3", _codes(3, 4, 8)), "up_scale": ("F32", _scales(1))}, FP8, "do not fit"),
        ({"a.weight": ("I8", _codes(8, 16))}, None, "numbers of the type I8 are no weights"),
        ({"a.weight": ("BOOL", _codes(8, 16) & 1)}, None, "numbers of the type BOOL are no weights"),
        ({**_WEIGHT, **_SCALED}, None, "'a.weight': its scale is missing"),
        (_WEIGHT, {**FP8, "weight_block_size": [0, 128]}, "two whole numbers above zero"),
        (_WEIGHT, {**FP8, "weight_block_size": [128.5, 128]}, "two whole numbers above zero"),
        (_WEIGHT, {**FP8, "weight_block_size": [128]}, "weight_block_size"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, tensors: Tensors, quantization: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        _read(tmp_path, tensors, quantization)


_INTS = {"config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}}}


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "gptq"}, {"quant_method": "awq"}, {"load_in_4bit": True},
        {"quant_method": "compressed-tensors", **_INTS}, {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    ],
)  # fmt: skip
def test_other_ways_to_quantize_are_refused(tmp_path: Path, quantization: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="its weights are quantized already"):
        _read(tmp_path, {"a.weight": ("F16", np.zeros((2, 4), np.float16))}, quantization)


def test_modelopt_says_so_in_a_file_of_its_own(tmp_path: Path) -> None:
    given = {"a.weight": ("F8_E4M3", _codes(4, 8)), "a.weight_scale": ("F32", _scales(1))}
    folder = _folder(tmp_path, given)
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
    np.testing.assert_array_equal(
        weights(Checkpoint.open(folder))["a.weight"].floats(0, 4), E4M3[_codes(4, 8)] * _scales(1)
    )
    _folder(tmp_path, _WEIGHT)
    with pytest.raises(CheckpointError, match="its scale is missing"):
        weights(Checkpoint.open(folder))
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    with pytest.raises(UnsupportedError, match=r"hf_quant_config.*quantized already"):
        weights(Checkpoint.open(folder))
