"""Importance matrices: both forms, and files that are neither."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from halfbyte.converters.quantize import quantize, read_importance
from halfbyte.formats.errors import InvalidRequest, ModelFileError
from halfbyte.formats.gguf import GGMLType, GGUFWriter

Columns = Mapping[str, np.ndarray]  # float32 [experts, cols]
COLUMNS: Columns = {
    "blk.0.ffn_up.weight": np.float32([[0.5, 2, 0, 8]]),
    "blk.0.ffn_up_exps.weight": np.float32([[1, 2], [3, 4], [5, 6]]),
}


def write_dat(path: Path, columns: Columns, calls: int = 4, end: bytes | None = None) -> None:
    """As llama-imatrix wrote them: means times the number of calls."""
    parts = [struct.pack("<i", len(columns))]
    for name, values in columns.items():
        parts += [struct.pack("<i", len(name)), name.encode(), struct.pack("<ii", calls, values.size)]
        parts.append((values * calls).astype("<f4").tobytes())
    text = b"some/text.txt"
    parts.append(struct.pack("<ii", 7, len(text)) + text if end is None else end)
    path.write_bytes(b"".join(parts))


def write_gguf(path: Path, columns: Columns, counts: Mapping[str, np.ndarray] | None = None) -> None:
    writer = GGUFWriter(path)
    writer.add("general.type", "imatrix")
    writer.add("imatrix.datasets", ["some/text.txt"])
    writer.add("imatrix.chunk_count", 7)
    writer.add("imatrix.chunk_size", 512)
    data = {}
    for name, values in columns.items():
        count = (counts or {}).get(name, np.full((len(values), 1), 16, np.float32))
        data[f"{name}.in_sum2"], data[f"{name}.counts"] = (values * count).astype(np.float32), count
    for name, values in data.items():
        writer.add_tensor(name, values.shape, GGMLType.F32)
    with writer.open():
        for name, values in data.items():
            writer.write_tensor(name, values)


def assert_same(found: Columns, expected: Columns) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name].reshape(values.shape), values)


def test_both_forms(tmp_path: Path) -> None:
    write_dat(tmp_path / "a.dat", COLUMNS)
    write_gguf(tmp_path / "a.gguf", COLUMNS)
    for name in ("a.dat", "a.gguf"):
        found = read_importance(tmp_path / name)
        assert_same(found.columns, COLUMNS)
        assert (found.file, found.dataset, found.chunks) == (name, "some/text.txt", 7)


def test_experts_that_were_never_asked_have_ones(tmp_path: Path) -> None:
    name = "blk.0.ffn_up_exps.weight"
    write_gguf(tmp_path / "a.gguf", COLUMNS, {name: np.float32([[16], [0], [2]])})
    assert_same(read_importance(tmp_path / "a.gguf").columns, {**COLUMNS, name: np.float32([[1, 2], [1, 1], [5, 6]])})


def test_counts_are_whole_as_llama_cpp_takes_them(tmp_path: Path) -> None:
    values = np.float32([[8, 4], [8, 4]])
    write_gguf(tmp_path / "a.gguf", {"x": values}, {"x": np.float32([[2.5], [0.25]])})
    assert_same(read_importance(tmp_path / "a.gguf").columns, {"x": np.float32([[20 / 3, 10 / 3], [1, 1]])})


def test_the_oldest_files_end_with_the_last_entry(tmp_path: Path) -> None:
    write_dat(tmp_path / "a.dat", COLUMNS, end=b"")
    found = read_importance(tmp_path / "a.dat")
    assert_same(found.columns, COLUMNS)
    assert (found.dataset, found.chunks) == ("", 0)


def test_every_cut_of_a_file_is_refused_or_the_oldest_form(tmp_path: Path) -> None:
    write_dat(tmp_path / "a.dat", COLUMNS, end=b"")
    oldest = (tmp_path / "a.dat").stat().st_size
    write_dat(tmp_path / "a.dat", COLUMNS)
    data = (tmp_path / "a.dat").read_bytes()
    for size in range(len(data)):
        (tmp_path / "b.dat").write_bytes(data[:size])
        if size == oldest:
            read_importance(tmp_path / "b.dat")
            continue
        with pytest.raises(ModelFileError):
            read_importance(tmp_path / "b.dat")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack("<i", -1), "number of entries"),
        (struct.pack("<i", 2**31 - 1), "number of entries"),
        (struct.pack("<ii", 1, -5), "length of a name"),
        (struct.pack("<ii", 1, 4000), "the file ends here"),
        (struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", -1, 1), "calls"),
        (struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, 2**30), "columns"),
        (struct.pack("<ii", 1, 1) + b"a" + struct.pack("<iif", 1, 1, np.nan), "NaN, infinity or a negative"),
        (struct.pack("<ii", 1, 1) + b"a" + struct.pack("<iif", 1, 1, -1.0), "NaN, infinity or a negative"),
    ],
)
def test_hostile_numbers(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.dat").write_bytes(data)
    with pytest.raises(ModelFileError, match=words):
        read_importance(tmp_path / "a.dat")


def test_an_importance_matrix_is_no_model(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", COLUMNS)
    with pytest.raises(InvalidRequest, match="is an importance matrix, not a model"):
        quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0")
    assert not list(tmp_path.glob("b*"))


def test_sums_without_counts(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "a.gguf")
    writer.add("general.type", "imatrix")
    writer.add_tensor("x.in_sum2", (2, 4), GGMLType.F32)
    writer.add_tensor("x.counts", (3, 1), GGMLType.F32)
    with writer.open():
        writer.write_tensor("x.in_sum2", np.ones((2, 4), np.float32))
        writer.write_tensor("x.counts", np.ones((3, 1), np.float32))
    with pytest.raises(ModelFileError, match="sums without a count"):
        read_importance(tmp_path / "a.gguf")


def test_files_that_are_not_there_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.dat").touch()
    for name in ("nowhere.dat", "empty.dat", ""):
        with pytest.raises(ModelFileError):
            read_importance(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
def test_counts_and_chunks_that_are_none(tmp_path: Path, value: float) -> None:
    write_gguf(tmp_path / "a.gguf", {"x": np.ones((1, 4), np.float32)}, {"x": np.float32([[value]])})
    with pytest.raises(ModelFileError, match="NaN, infinity or a negative"):
        read_importance(tmp_path / "a.gguf")
    writer = GGUFWriter(tmp_path / "b.gguf")
    writer.add("general.type", "imatrix")
    writer.add("imatrix.chunk_count", -5)
    writer.open().close()
    with pytest.raises(ModelFileError, match="below zero"):
        read_importance(tmp_path / "b.gguf")
