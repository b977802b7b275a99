"""Files that are not GGUF, and paths that are not files: the message names the cause and the next step."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
from halfbyte.formats.gguf import GGUFFile
from halfbyte.formats.gguf.errors import FileAccessError, NotGGUFError, SplitError, VersionError

from .raw import U8, U16, Raw


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return file.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


FOREIGN = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", "git-LFS", "git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html></html>", "HTML", "access rights"),
    "html_bare": (b"<HTML><body>", "HTML", "access rights"),
    "xml": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "XML", "access rights"),
    "not_found": (b"Entry not found", "failed download", "file name"),
    "gated": (b"Access to model x/y is restricted", "refused download", "licence"),
    "zip": (zipped(), "zip archive", "as a GGUF file"),
    "pickle": (pickle.dumps({"w": [1.0]}), "pickle", "as a GGUF file"),
    "safetensors": (safetensors(), "safetensors", "as a GGUF file"),
    "gzip": (gzip.compress(b"GGUF"), "gzip", "Unpack"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5", "as a GGUF file"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(20), "zstd", "Unpack"),
    "ggml": (b"lmgg" + bytes(20), "GGML", "GGUF version"),
    "ggjt": (b"tjgg" + bytes(20), "GGJT", "GGUF version"),
    "swapped": (b"FUGG" + bytes(20), "byte-swapped", "convert again"),
    "json": (b'{"architectures": ["LlamaForCausalLM"]}', "JSON", "as a GGUF file"),
    "zeros": (bytes(4096), "zeros", "download"),
    "elf": (b"\x7fELF" + bytes(60), "program", ".gguf"),
    "text": (b"hello", "not a GGUF file", ".gguf"),
    "empty": (b"", "empty", "again"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_format(name: str, tmp_path: Path) -> None:
    data, cause, step = FOREIGN[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(NotGGUFError) as caught:
        GGUFFile.open(path)
    message = str(caught.value)
    assert cause in message
    assert step in message
    assert str(path) in message


def test_version_1_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(VersionError, match="convert the model again"):
        GGUFFile.from_buffer(Raw().header(version=1).done())


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match="no such file"):
        GGUFFile.open(tmp_path / "absent.gguf")


def test_nul_in_path() -> None:
    with pytest.raises(FileAccessError):
        GGUFFile.open("a\0b.gguf")


def test_directories_say_what_is_inside(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"directory.*Give the path of a \.gguf file"):
        GGUFFile.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileAccessError, match="as a GGUF file"):
        GGUFFile.open(tmp_path)
    (tmp_path / "tiny.gguf").write_bytes(b"")
    with pytest.raises(FileAccessError, match=r"tiny\.gguf"):
        GGUFFile.open(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(FileAccessError, match="not a regular file"):
        GGUFFile.open(tmp_path / "pipe.gguf")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user without all permissions")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(Raw().header().done())
    path.chmod(0)
    with pytest.raises(FileAccessError, match="permission"):
        GGUFFile.open(path)


def test_permission_error_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("halfbyte.formats.gguf.source.os.stat", refuse)
    with pytest.raises(FileAccessError, match="owner and permissions"):
        GGUFFile.open(tmp_path / "model.gguf")


def shard(tmp_path: Path, name: str, no: int | None, count: int | None, total: int | None, tensor: str) -> Path:
    keys = [("split.no", no), ("split.count", count), ("split.tensors.count", total)]
    present = [(key, n) for key, n in keys if n is not None]
    raw = Raw().header(1, len(present))
    for key, n in present:
        raw.kv(key, U16, n)
    path = tmp_path / name
    path.write_bytes(raw.tensor(tensor).pad().body(128).done())
    return path


def test_split_set_is_followed_from_any_shard(tmp_path: Path) -> None:
    paths = [shard(tmp_path, f"m-0000{i + 1}-of-00003.gguf", i, 3, 3, f"t{i}") for i in range(3)]
    for path in paths:
        with GGUFFile.open(path) as file:
            assert list(file.tensors) == ["t0", "t1", "t2"]
            assert file.path == paths[0]
            assert file.paths == tuple(paths)
            assert file.size == sum(p.stat().st_size for p in paths)
            assert file.tensors["t2"].path == str(paths[2])
    with GGUFFile.open(paths[1], follow_splits=False) as file:
        assert list(file.tensors) == ["t1"]


@pytest.mark.parametrize(
    ("second", "field"),
    [
        ({"name": "m-00002-of-00003.gguf"}, "split.count"),  # the set lacks its second shard
        ({"no": 0}, "split.no"),
        ({"no": 2}, "split.no"),
        ({"count": 3}, "split.count"),
        ({"tensor": "t0"}, None),  # the same tensor twice
        ({"first_total": 3}, "split.tensors.count"),
    ],
)
def test_contradicting_shards(tmp_path: Path, second: dict[str, object], field: str | None) -> None:
    total = second.pop("first_total", 2)
    shard(tmp_path, "m-00001-of-00002.gguf", 0, 2, total, "t0")  # type: ignore[arg-type]
    right = {"name": "m-00002-of-00002.gguf", "no": 1, "count": 2, "total": 2, "tensor": "t1"}
    shard(tmp_path, **(right | second))  # type: ignore[arg-type]
    with pytest.raises(Exception) as caught:
        GGUFFile.open(tmp_path / "m-00001-of-00002.gguf")
    if field is None:
        assert type(caught.value).__name__ == "DuplicateTensorError"
    else:
        assert isinstance(caught.value, SplitError)
        assert caught.value.field == field


@pytest.mark.parametrize("key", ["split.no", "split.count", "split.tensors.count"])
def test_shard_without_a_key(tmp_path: Path, key: str) -> None:
    values = {"split.no": 1, "split.count": 2, "split.tensors.count": 2}
    first = values | {"split.no": 0}
    if key == "split.tensors.count":
        del first[key]
    else:
        del values[key]
    shard(tmp_path, "m-00001-of-00002.gguf", *map(first.get, values | first), "t0")  # type: ignore[arg-type]
    names = ("split.no", "split.count", "split.tensors.count")
    shard(tmp_path, "m-00002-of-00002.gguf", *map(values.get, names), "t1")  # type: ignore[arg-type]
    with pytest.raises(Exception, match=key):
        GGUFFile.open(tmp_path / "m-00001-of-00002.gguf")


def test_shard_under_another_name(tmp_path: Path) -> None:
    path = shard(tmp_path, "renamed.gguf", 0, 2, 2, "t0")
    with pytest.raises(SplitError, match="name does not say so"):
        GGUFFile.open(path)
    path = shard(tmp_path, "m-00001-of-00009.gguf", 0, 2, 2, "t0")
    with pytest.raises(SplitError, match="name does not say so"):
        GGUFFile.open(path)


def test_the_first_shard_is_found_from_any(tmp_path: Path) -> None:
    paths = [shard(tmp_path, f"m-0000{i + 1}-of-00003.gguf", i, 3, 3, f"t{i}") for i in range(3)]
    paths[1].write_bytes(paths[1].read_bytes()[:40])  # the others are not even looked at
    for path in (paths[0], paths[2]):
        with GGUFFile.open_first(path) as file:
            assert (file.path, list(file.tensors)) == (paths[0], ["t0"])
    whole = tmp_path / "whole.gguf"
    whole.write_bytes(Raw().header(1).tensor("t").pad().body(128).done())
    with GGUFFile.open_first(whole) as file:
        assert file.path == whole


def test_a_first_shard_that_is_missing_or_another(tmp_path: Path) -> None:
    path = shard(tmp_path, "m-00002-of-00002.gguf", 1, 2, 2, "t1")
    with pytest.raises(SplitError, match=r"missing.*m-00001-of-00002\.gguf"):
        GGUFFile.open_first(path)
    shard(tmp_path, "m-00001-of-00002.gguf", 0, 3, 3, "t0")
    with pytest.raises(SplitError, match=r"split\.count"):
        GGUFFile.open_first(path)


def test_missing_shards_are_named(tmp_path: Path) -> None:
    path = shard(tmp_path, "m-00002-of-00006.gguf", 1, 6, 6, "t0")
    with pytest.raises(SplitError, match=r"5 of 6 shards are missing.*m-00001-of-00006\.gguf.*and 2 more"):
        GGUFFile.open(path)


def test_damaged_second_shard_is_named(tmp_path: Path) -> None:
    shard(tmp_path, "m-00001-of-00002.gguf", 0, 2, 2, "t0")
    path = shard(tmp_path, "m-00002-of-00002.gguf", 1, 2, 2, "t1")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Exception, match=r"m-00002-of-00002\.gguf"):
        GGUFFile.open(tmp_path / "m-00001-of-00002.gguf")


def test_message_stays_printable() -> None:
    evil = "\x1b]52;c;ZXZpbA==\x07\u202egnp.\r\n"
    data = Raw().header(n_kv=2).kv(evil, U8, 1).kv(evil, U8, 1).done()
    with pytest.raises(Exception) as caught:
        GGUFFile.from_buffer(data)
    assert str(caught.value).isprintable()
