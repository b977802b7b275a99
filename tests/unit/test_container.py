"""Tensors that a file stores as bytes and describes in keys: both ways, and keys that lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.errors import UnsupportedError
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter
from halfbyte.formats.gguf.errors import ContainerError, GGUFError, MetadataError, TensorTypeError, WriteError
from halfbyte.formats.gguf.kinds import BY_TEXT, KINDS
from halfbyte.formats.gguf.packing import Stored, container_keys, pack_nested, stored_form
from halfbyte.formats.quants import codec_for, decode

A, B = "blk.0.a.weight", "blk.0.b.weight"
SHAPES = {A: (3, 128), B: (2, 5, 192)}
TYPES = {A: GGMLType.NF4, B: GGMLType.FP4_DQ}
NESTED = f"{B}.fp4_nested"


def weights(name: str) -> np.ndarray:
    rng = np.random.default_rng(len(SHAPES[name]))
    return rng.standard_normal(SHAPES[name]).astype(np.float32)


def stored() -> tuple[dict[str, Any], dict[str, tuple[GGMLType, tuple[int, ...], Any]]]:
    """Keys and tensors (type, shape, data) of a file that is right."""
    a, b = (codec_for(TYPES[name]).encode(weights(name)) for name in (A, B))
    raw, companion = pack_nested(b.reshape(10, -1), KINDS[TYPES[B]])
    data = {A: a, B: raw, NESTED: companion}
    tensors = {}
    for name in (A, B):
        for one in stored_form(name, SHAPES[name], TYPES[name]):
            tensors[one.name] = (one.type, one.shape, data[one.name])
    keys = container_keys([Stored(name, TYPES[name], SHAPES[name]) for name in (A, B)], "a test")
    return {"general.architecture": "llama", **keys}, tensors


def write(path: Path, keys: dict[str, Any], tensors: dict[str, Any], order: str = "little") -> Path:
    writer = GGUFWriter(path, byte_order=">" if order == "big" else "<")
    for key, value in keys.items():
        writer.add(key, value)
    for name, (type_, shape, _) in tensors.items():
        writer.add_tensor(name, shape, type_)
    with writer.open():
        for name, (_, _, data) in tensors.items():
            writer.write_tensor(name, np.ascontiguousarray(data).reshape(-1).view(np.uint8))
    return path


@pytest.mark.parametrize("order", ["little", "big"])
def test_tensors_appear_as_what_they_stand_for(tmp_path: Path, order: str) -> None:
    keys, tensors = stored()
    with GGUFFile.open(write(tmp_path / "a.gguf", keys, tensors, order)) as file:
        assert list(file.tensors) == [A, B]
        a, b = file.tensors[A], file.tensors[B]
        assert (a.type, a.shape, a.n_bytes) == (GGMLType.NF4, (3, 128), 3 * 2 * 34)
        assert (b.type, b.shape, b.n_bytes) == (GGMLType.FP4_DQ, (2, 5, 192), 10 * 3 * 33 + 4 * 2)
        assert np.array_equal(a.data, codec_for(a.type).encode(weights(A)))
        plain = codec_for(GGMLType.FP4).encode(weights(B))
        off = decode(b.data, b.type) - decode(plain, GGMLType.FP4)
        assert 0 < np.linalg.norm(off) < 0.02 * np.linalg.norm(weights(B))
        for tensor in (a, b):
            tensor.forget()
            assert not tensor.data.flags.writeable


def test_nothing_changes_without_the_version(tmp_path: Path) -> None:
    keys, tensors = stored()
    del keys["halfbyte.container.version"]
    with GGUFFile.open(write(tmp_path / "a.gguf", keys, tensors)) as file:
        assert {name: t.type.name for name, t in file.tensors.items()} == {A: "I8", B: "I8", NESTED: "F32"}


def test_other_programs_can_list_it(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    keys, tensors = stored()
    reader = gguf.GGUFReader(write(tmp_path / "a.gguf", keys, tensors))
    assert [(t.name, t.tensor_type.name) for t in reader.tensors] == [(A, "I8"), (B, "I8"), (NESTED, "F32")]


# What is changed, the error, and what its message says.
LIES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "version": ({"halfbyte.container.version": 2}, UnsupportedError, "'halfbyte.container.version' is 2"),
    "version is text": ({"halfbyte.container.version": "1"}, MetadataError, "wrong type"),
    "kind": ({"halfbyte.quant.kinds": ["nf4.64", "nf3.64"]}, UnsupportedError, "the kind 'nf3.64'"),
    "no kinds": ({"halfbyte.quant.kinds": None}, MetadataError, "halfbyte.quant.kinds"),
    "fewer kinds": ({"halfbyte.quant.kinds": ["nf4.64"]}, ContainerError, r"kinds.*got 1, allowed: 2"),
    "fewer rows": ({"halfbyte.quant.rows": [3]}, ContainerError, r"rows.*got 1"),
    "twice": ({"halfbyte.quant.names": [A, A]}, ContainerError, "listed twice"),
    "names are numbers": ({"halfbyte.quant.names": [1, 2]}, ContainerError, "list of strings"),
    "rows are text": ({"halfbyte.quant.rows": ["3", "10"]}, ContainerError, "whole numbers"),
    "rows are fractions": ({"halfbyte.quant.rows": [3.0, 10.0]}, ContainerError, "whole numbers"),
    "no tensor": ({"halfbyte.quant.names": [A, "blk.0.c.weight"]}, ContainerError, r"no such tensor.*blk\.0\.c"),
    "companion listed": ({"halfbyte.quant.names": [A, NESTED]}, ContainerError, "stored as I8"),
    "cols": ({"halfbyte.quant.cols": [64, 192]}, ContainerError, r"bytes that their columns need"),
    "cols are no blocks": ({"halfbyte.quant.cols": [128, 191]}, ContainerError, "got"),
    "cols below zero": ({"halfbyte.quant.cols": [-128, 192]}, ContainerError, "got"),
    "cols without end": ({"halfbyte.quant.cols": [(1 << 63) - 64, 192]}, ContainerError, "got"),
    "rows": ({"halfbyte.quant.rows": [3, 11]}, ContainerError, "number of rows"),
    "block size": ({"halfbyte.quant.kinds": ["nf4.128", "fp4dq.64.256"]}, ContainerError, "nf4.128"),
    "not nested": ({"halfbyte.quant.kinds": ["nf4.64", "fp4.64"]}, ContainerError, "fp4.64"),
    "codebook": ({"halfbyte.nf4.codebook": np.arange(16, dtype=np.float32)}, UnsupportedError, "codebook of NF4"),
    "codebook is text": ({"halfbyte.nf4.codebook": ["a"]}, UnsupportedError, "codebook of NF4"),
    "layout": ({"halfbyte.fp4.layout": "f32absmax"}, UnsupportedError, "'f32absmax'"),
    "levels": ({"halfbyte.nested.codebook": np.zeros(255, np.float32)}, ContainerError, "256"),
    "NaN levels": ({"halfbyte.nested.codebook": np.full(256, np.nan, np.float32)}, ContainerError, "NaN"),
    "type": ({A: (GGMLType.Q8_0, (3, 128), np.zeros(3 * 136, np.uint8))}, ContainerError, "Q8_0"),
    "no companion": ({NESTED: None}, ContainerError, "fp4_nested"),
    "short companion": ({NESTED: (GGMLType.F32, (1,), np.zeros(1, np.float32))}, ContainerError, r"F32 \(2,\)"),
    "other companion": ({NESTED: (GGMLType.F16, (2,), np.zeros(2, np.float16))}, ContainerError, "F16"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_keys_that_lie(tmp_path: Path, lie: str) -> None:
    changes, error, message = LIES[lie]
    keys, tensors = stored()
    for name, value in changes.items():
        target: dict[str, Any] = keys if name.startswith("halfbyte") else tensors
        target[name] = value
    keys, tensors = ({k: v for k, v in d.items() if v is not None} for d in (keys, tensors))
    path = write(tmp_path / "a.gguf", keys, tensors)
    with pytest.raises(error, match=message) as caught:
        GGUFFile.open(path)
    assert str(path) in str(caught.value)


def test_ids_of_memory_are_neither_read_nor_written(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="no file can say NF4"):
        GGUFWriter(tmp_path / "a.gguf").add_tensor("a", (1, 64), GGMLType.NF4)
    _, tensors = stored()
    path = write(tmp_path / "a.gguf", {"a": 1}, {A: tensors[A]})
    data = path.read_bytes()
    at = data.index(A.encode()) + len(A) + 4 + 2 * 8
    for number in (1000, 1001, 1032, 1033):
        path.write_bytes(data[:at] + number.to_bytes(4, "little") + data[at + 4 :])
        with pytest.raises(TensorTypeError, match=str(number)):
            GGUFFile.open(path)
    assert issubclass(ContainerError, GGUFError)


def test_kinds_have_names_of_their_own() -> None:
    assert len(BY_TEXT) == len(KINDS) == 32
    assert {KINDS[GGMLType[name]].text for name in ("NF4", "NF4_DQ_128", "FP4_4096")} == {
        "nf4.64", "nf4dq.128.256", "fp4.4096"
    }  # fmt: skip


def test_reversible_names_are_a_hint(tmp_path: Path) -> None:
    """Another program may have made other types of them, or dropped them."""
    q8_0 = codec_for(GGMLType.Q8_0).encode(weights(A))
    tensors = {A: (GGMLType.Q8_0, SHAPES[A], q8_0), B: (GGMLType.F32, SHAPES[B], weights(B))}
    path = write(tmp_path / "a.gguf", {"halfbyte.nf4.reversible": [A, B, "gone"]}, tensors)
    with GGUFFile.open(path) as file:
        assert (file.tensors[A].made_of, file.tensors[B].made_of) == (GGMLType.NF4, None)
        assert np.array_equal(file.tensors[A].data, q8_0)
