"""The safetensors reader: one error per way to be wrong, and views of what is right."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.errors import ModelFileError
from halfbyte.formats.safetensors import SafetensorsFile, errors
from halfbyte.formats.stored import E4M3, E5M2, to_float32

from ..convert.checkpoints import safetensors

GOOD: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "U8", "shape": [5], "data_offsets": [24, 29]},
}


def file(header: Any, data: bytes = bytes(29), *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def changed(name: str, **fields: Any) -> bytes:
    return file(GOOD | {name: GOOD[name] | fields})


# As the reference implementation judges them (tests/oracle/test_safetensors_live.py asks it).
WRONG: dict[str, tuple[bytes, type[ModelFileError]]] = {
    "seven bytes": (b"1234567", errors.HeaderTooSmallError),
    "header of 100 MB and one": (file(GOOD, length=100_000_001), errors.HeaderTooLargeError),
    "header of 2**64 - 1": (file(GOOD, length=2**64 - 1), errors.HeaderTooLargeError),
    "header behind the end": (file(b"{}", b"", length=3), errors.HeaderLengthError),
    "a list": (file(b"[]", b""), errors.HeaderStartError),
    "not UTF-8": (file(b'{"\xff": 1}', b""), errors.HeaderEncodingError),
    "no JSON": (file(b'{"a": }', b""), errors.HeaderJsonError),
    "something behind the header": (file(b"{} x", b""), errors.HeaderJsonError),
    "nested too deeply": (file(b'{"a": ' + b"[" * 99_999 + b"]" * 99_999 + b"}", b""), errors.HeaderJsonError),
    "NaN": (file(b'{"a": NaN}', b""), errors.HeaderJsonError),
    "a field twice": (file(b'{"a": {"dtype": "U8", "dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}', b"0"),
                      errors.HeaderJsonError),
    "half a character": (file(b'{"\\ud800": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}', b"0"),
                         errors.HeaderJsonError),
    "metadata of numbers": (file({"__metadata__": {"a": 1}}, b""), errors.HeaderJsonError),
    "no dtype": (file({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"0"), errors.HeaderJsonError),
    "unknown dtype": (changed("a", dtype="F33"), errors.DtypeError),
    "a shape of floats": (changed("a", shape=[2.0, 3]), errors.HeaderJsonError),
    "a shape of truth": (changed("b", shape=[True]), errors.HeaderJsonError),
    "a negative dimension": (changed("a", shape=[-2, -3]), errors.HeaderJsonError),
    "three offsets": (changed("a", data_offsets=[0, 24, 24]), errors.HeaderJsonError),
    "an end before its start": (changed("b", data_offsets=[24, 23]), errors.OffsetError),
    "a hole": (file(GOOD | {"b": GOOD["b"] | {"data_offsets": [25, 30]}}, bytes(30)), errors.OffsetError),
    "an overlap": (changed("b", data_offsets=[23, 28]), errors.OffsetError),
    "beyond the end": (file(GOOD, bytes(28)), errors.IncompleteError),
    "something behind the tensors": (file(GOOD, bytes(30)), errors.IncompleteError),
    "too many bytes": (changed("b", shape=[4]), errors.SizeError),
    "more elements than 64 bits": (changed("a", shape=[2**63, 2, 0]), errors.ShapeError),
    "more bytes than 64 bits": (changed("a", shape=[2**61, 4]), errors.ShapeError),
    "half a byte": (file({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, b"0"), errors.AlignmentError),
}  # fmt: skip


def opened(content: bytes, folder: Path) -> SafetensorsFile:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return SafetensorsFile.open(path)


@pytest.mark.parametrize("name", WRONG)
def test_each_way_to_be_wrong_has_its_error(name: str, tmp_path: Path) -> None:
    content, error = WRONG[name]
    with pytest.raises(error, match=r"model\.safetensors"):
        opened(content, tmp_path)


def test_tensors_are_views_in_the_order_of_the_file(tmp_path: Path) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(5, dtype=np.uint8)
    header = {"__metadata__": {"format": "pt"}, "b": GOOD["b"], "a": GOOD["a"]}
    with opened(file(header, a.tobytes() + b.tobytes()), tmp_path) as found:
        assert list(found.tensors) == ["a", "b"]
        assert found.metadata == {"format": "pt"}
        assert found.tensors["a"].shape == (2, 3)
        assert np.array_equal(to_float32(found.tensors["a"].raw, "F32").reshape(2, 3), a)
        assert np.array_equal(found.tensors["b"].raw, b)
        assert not found.tensors["b"].raw.flags.writeable


@pytest.mark.parametrize("header", [b"{}", b" {} ", b'{"__metadata__": null}'])
def test_a_file_without_tensors_is_valid(header: bytes, tmp_path: Path) -> None:
    with opened(file(header, b""), tmp_path) as found:
        assert not found.tensors


def test_empty_tensors_and_scalars(tmp_path: Path) -> None:
    arrays = {"none": np.zeros((0, 3), np.float32), "one": np.float64(1.5), "two": np.zeros((2, 0), np.int8)}
    with opened(safetensors({name: np.asarray(array) for name, array in arrays.items()}), tmp_path) as found:
        assert {name: tensor.shape for name, tensor in found.tensors.items()} == {
            "none": (0, 3), "one": (), "two": (2, 0),
        }  # fmt: skip


def test_eight_bit_floats() -> None:
    assert [E4M3[code] for code in (0, 1, 8, 56, 126, 129)] == [0, 2**-9, 2**-6, 1, 448, -(2**-9)]
    assert [E5M2[code] for code in (0, 1, 4, 60, 123, 124, 252)] == [0, 2**-16, 2**-14, 1, 57344, np.inf, -np.inf]
    assert np.isnan(E4M3[[127, 255]]).all()
    assert np.isnan(E5M2[[125, 126, 127, 255]]).all()
