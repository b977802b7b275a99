"""`halfbyte hash` and `halfbyte verify`, against manifests made of what the `gguf` package reads."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter
from halfbyte.tools.hashes import hash_model

from ..recipe_models import write
from .conftest import Halfbyte


def manifest_of(path: Path, name: str, *algorithms: str) -> list[str]:
    """As llama-gguf-hash prints it."""
    lines, whole = [], {algorithm: hashlib.new(algorithm) for algorithm in algorithms}
    for tensor in gguf.GGUFReader(path).tensors:
        data = tensor.data.tobytes()
        for algorithm in algorithms:
            whole[algorithm].update(data)
            lines.append(f"{algorithm:<8}  {hashlib.new(algorithm, data).hexdigest()}  {name}:{tensor.name}")
    return lines + [f"{algorithm:<8}  {found.hexdigest()}  {name}" for algorithm, found in whole.items()]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write(tmp_path / "m.gguf", "eight")
    return tmp_path / "m.gguf"


def changed(
    source: Path, target: Path, *, drop: str = "", add: str = "", damage: str = "", shards: int | None = None
) -> None:
    """A copy with other metadata, and with tensors that are missing, new, or off by a bit."""
    with GGUFFile.open(source) as file:
        data = {name: np.array(tensor.data) for name, tensor in file.tensors.items() if name != drop}
        types = {name: file.tensors[name].type for name in data}
        shapes = {name: file.tensors[name].shape for name in data}
    if damage:
        data[damage].reshape(-1)[7] ^= 1
    if add:
        data[add], types[add], shapes[add] = np.zeros(4, np.uint8), GGMLType.F32, (1,)
    writer = GGUFWriter(target, split_max_tensors=shards)
    writer.add("general.name", "another")
    for name, type_ in types.items():
        writer.add_tensor(name, shapes[name], type_)
    with writer.open():
        for name, values in data.items():
            writer.write_tensor(name, values)


def test_the_lines_of_llama_gguf_hash(halfbyte: Halfbyte, model: Path) -> None:
    assert halfbyte("hash", "m.gguf").stdout.splitlines() == manifest_of(model, "m.gguf", "sha256")
    both = halfbyte("hash", "m.gguf", "--algorithm", "sha1", "--algorithm", "sha256").stdout.splitlines()
    assert both == manifest_of(model, "m.gguf", "sha1", "sha256")
    whole = halfbyte("hash", str(model), "--no-tensors").stdout.splitlines()
    assert whole == manifest_of(model, str(model), "sha256")[-1:]
    about = json.loads(halfbyte("hash", "m.gguf", "--json").stdout)
    assert f"sha256    {about['sha256']}  m.gguf" == manifest_of(model, "m.gguf", "sha256")[-1]
    assert len(about["tensors"]) == len(manifest_of(model, "m.gguf", "sha256")) - 1


def verified(done: subprocess.CompletedProcess[str]) -> tuple[int, list[str], str]:
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_equal_weights_under_other_names_metadata_and_shards(halfbyte: Halfbyte, model: Path, tmp_path: Path) -> None:
    lines = manifest_of(model, "some/where/m.gguf", "sha1", "sha256")
    (tmp_path / "manifest").write_text("\n".join(lines) + "\n", encoding="utf-8")
    changed(model, tmp_path / "split.gguf", shards=50)
    n = len(lines) // 2 - 1
    assert verified(halfbyte("verify", "m.gguf", "manifest")) == (0, [f"{n} tensors equal, sha256"], "")
    split = "split-00002-of-00003.gguf"
    assert verified(halfbyte("verify", split, "manifest")) == (0, [f"{n} tensors equal, sha256"], "")
    (tmp_path / "manifest").write_text("\n".join(line for line in lines if "sha1" in line and ":" not in line))
    assert verified(halfbyte("verify", "m.gguf", "manifest")) == (0, ["the model equal, sha1"], "")


def test_what_differs_is_listed(halfbyte: Halfbyte, model: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest").write_text("\n".join(manifest_of(model, "m.gguf", "sha256")), encoding="utf-8")
    q, k = "blk.3.attn_q.weight", "blk.4.attn_k.weight"
    changed(model, tmp_path / "b.gguf", drop=k, add="new\x1b.weight", damage=q)
    code, lines, error = verified(halfbyte("verify", "b.gguf", "manifest"))
    assert code == 3
    assert lines == [f"differs  {q}", f"missing  {k}", "extra  new\\x1b.weight", "differs  (the whole model)"]
    assert error == "error: b.gguf: not what manifest says\n"
    about = json.loads(halfbyte("verify", "b.gguf", "manifest", "--json").stdout)
    assert about == {
        "model": "b.gguf", "algorithm": "sha256", "equal": False, "whole": False, "differs": [q], "missing": [k],
        "extra": ["new\\x1b.weight"],
    }  # fmt: skip


def test_names_that_need_escapes_are_found_again(halfbyte: Halfbyte, model: Path, tmp_path: Path) -> None:
    changed(model, tmp_path / "b.gguf", add="a\n\x1b: b.weight")
    made = halfbyte("hash", "b.gguf").stdout
    (tmp_path / "manifest").write_text(made, encoding="utf-8")
    assert halfbyte("verify", "b.gguf", "manifest").returncode == 0


def test_a_manifest_of_several_models(halfbyte: Halfbyte, model: Path, tmp_path: Path) -> None:
    changed(model, tmp_path / "b.gguf", damage="blk.0.attn_q.weight")
    lines = manifest_of(tmp_path / "b.gguf", r"C:\models\b.gguf", "sha256") + manifest_of(model, "m.gguf", "sha256")
    (tmp_path / "manifest").write_text("\n".join(lines), encoding="utf-8")
    assert halfbyte("verify", "m.gguf", "manifest").returncode == 0
    assert halfbyte("verify", "b.gguf", "manifest").returncode == 0
    (tmp_path / "b.gguf").rename(tmp_path / "c.gguf")
    done = halfbyte("verify", "c.gguf", "manifest")
    assert (done.returncode, done.stderr) == (2, "error: manifest is of 2 models, c.gguf is none of them\n")


@pytest.mark.parametrize(("text", "code", "words"), [
    ("", 2, "holds no hashes"),
    ("xxh3      0123456789abcdef  m.gguf", 5, "xxh3 hashes only; known are sha256, sha1"),
    ("\x1b[2J nonsense\n" * 3, 2, "holds no hashes"),
    ("GGUF" + "sha256  0a  a.gguf\n" * 2, 2, "manifest is a model, not a manifest"),
    (None, 2, "manifest: no such file"),
])  # fmt: skip
def test_bad_manifests(
    text: str | None, code: int, words: str, halfbyte: Halfbyte, model: Path, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "manifest").write_text(text, encoding="utf-8")
    done = halfbyte("verify", "m.gguf", "manifest")
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr and done.stderr.count("\n") == 1


def test_progress_counts_every_byte(model: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    with GGUFFile.open(model) as file:
        found = [*hash_model(file, ["sha256"], with_tensors=False, progress=lambda *state: seen.append(state))]
        size = sum(tensor.n_bytes for tensor in file.tensors.values())
    assert len(found) == 1 and seen[-1] == ("hash", size, size)
