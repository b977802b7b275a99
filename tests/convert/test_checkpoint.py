"""Folders: which files may be opened, and what is said of those that are not what they should be."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.converters.checkpoint import Checkpoint, CheckpointError
from halfbyte.converters.rows import stored
from halfbyte.formats.errors import ModelFileError

from .checkpoints import safetensors, write_folder

CONFIG = {"architectures": ["LlamaForCausalLM"]}
TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float32)}


def sharded(folder: Path, weight_map: dict[str, Any]) -> Path:
    write_folder(folder, CONFIG, TENSORS, shards=2)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("shards", [1, 2])
def test_tensors_of_all_shards(shards: int, tmp_path: Path) -> None:
    with Checkpoint.open(write_folder(tmp_path, CONFIG, TENSORS, shards=shards)) as found:
        assert found.tensors.keys() == TENSORS.keys()
        assert len(found.files) == shards


def test_numbers_beyond_float32_are_infinite_without_a_word(tmp_path: Path) -> None:
    """What is said of them is the error of whoever reads them, not NumPy's warning."""
    wide = {"a": np.array([[1e300, -1e300, 1.0]]), "b": np.frombuffer(bytes.fromhex("010000000000f07f"), "<f8")}
    with Checkpoint.open(write_folder(tmp_path, CONFIG, wide)) as found, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stored(found.tensors["a"]).floats(0, 1).tolist() == [[np.inf, -np.inf, 1.0]]
        assert np.isnan(stored(found.tensors["b"]).floats(0, 1)).all()


ESCAPES = [
    "../model.safetensors", "x/../../model.safetensors", "/etc/passwd", "C:\\model.safetensors", "\\\\host\\share\\x",
    "model.safetensors\0", "C:x", "..", ".", "", "./model.safetensors", "a//b", None, 5, ["a"], "x" * 2000, "x" * 256,
]  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES, ids=[repr(name)[:30] for name in ESCAPES])
def test_an_index_cannot_lead_out_of_the_folder(name: Any, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors(TENSORS))
    folder = sharded(tmp_path / "folder", {"a": name})
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    with pytest.raises(CheckpointError, match="index"):
        Checkpoint.open(folder)
    assert not [path for path in opened if path.endswith(".safetensors") or "passwd" in path]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right that tests on Windows lack")
def test_links_lead_nowhere_but_to_blobs_of_the_same_model(tmp_path: Path) -> None:
    cache = tmp_path / "models--x--y"
    (cache / "blobs").mkdir(parents=True)
    write_folder(cache / "snapshots" / "1234", CONFIG, TENSORS)
    snapshot = cache / "snapshots" / "1234"
    (snapshot / "model.safetensors").rename(cache / "blobs" / "abcd")
    os.symlink("../../blobs/abcd", snapshot / "model.safetensors")
    with Checkpoint.open(snapshot) as found:
        assert found.tensors.keys() == TENSORS.keys()
    (snapshot / "model.safetensors").unlink()
    (tmp_path / "secret").write_bytes(safetensors(TENSORS))
    os.symlink(tmp_path / "secret", snapshot / "model.safetensors")
    with pytest.raises(CheckpointError, match="outside"):
        Checkpoint.open(snapshot)


FOREIGN = {
    "git-LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 5\n",
    "HTML": b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "empty": b"",
    "zeros": bytes(1000),
    "gzip": b"\x1f\x8b\x08" + bytes(50),
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_downloads_that_went_wrong_are_recognized(name: str, what: str, tmp_path: Path) -> None:
    write_folder(tmp_path, CONFIG, TENSORS)
    (tmp_path / name).write_bytes(FOREIGN[what])
    with pytest.raises(ModelFileError) as caught:
        Checkpoint.open(tmp_path)
    if what in ("git-LFS", "HTML"):
        assert what in str(caught.value)
    assert name in str(caught.value)


def test_incomplete_and_contradicting_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        Checkpoint.open(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Checkpoint.open(tmp_path)
    write_folder(tmp_path, CONFIG, TENSORS)
    (tmp_path / "model.safetensors").rename(tmp_path / "model.safetensors.incomplete")
    with pytest.raises(CheckpointError, match="interrupted"):
        Checkpoint.open(tmp_path)
    shard = "model-00001-of-00002.safetensors"
    for weight_map, said in (
        ({"a": shard, "b": shard}, "not in the shard"),
        ({"a": shard, "c": shard}, "not in the shard"),
        ({"a": "model-00003-of-00002.safetensors"}, "missing"),
        ({}, "no map"),
    ):
        with pytest.raises(CheckpointError, match=said):
            Checkpoint.open(sharded(tmp_path / "shards", weight_map))
    folder = sharded(tmp_path / "twice", {"a": shard, "b": "copy.safetensors"})
    (folder / "copy.safetensors").write_bytes(safetensors(TENSORS))
    with pytest.raises(CheckpointError, match="two shards"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '{"a": NaN}', "[1]", "{", '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}", '{"a": 1e999}']
)
def test_config_is_strict_json(text: str, tmp_path: Path) -> None:
    write_folder(tmp_path, CONFIG, TENSORS)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Checkpoint.open(tmp_path)
