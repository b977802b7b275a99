"""Where a quantized model cannot go: one error each, and nothing is left behind or lost."""

from __future__ import annotations

import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from halfbyte.converters.quantize import quantize
from halfbyte.formats.errors import HalfbyteError, InvalidRequest, ResourceError

from ..recipe_models import write


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write(tmp_path / "in.gguf", "narrow")
    return tmp_path / "in.gguf"


def refused(model: Path, target: Path, error: type[HalfbyteError], words: str, code: int) -> None:
    before, names = model.read_bytes(), sorted(model.parent.iterdir())
    with pytest.raises(error, match=words) as found:
        quantize(model, target, "Q4_0")
    assert found.value.exit_code == code
    assert (model.read_bytes(), sorted(model.parent.iterdir())) == (before, names)


def test_the_source_under_any_name(model: Path) -> None:
    symbolic, hard = model.with_name("symbolic.gguf"), model.with_name("hard.gguf")
    symbolic.symlink_to(model)
    hard.hardlink_to(model)
    for target in (model, symbolic, hard, model.parent / "." / "in.gguf"):
        refused(model, target, InvalidRequest, "is the file that is read", 2)


def test_what_is_no_file(model: Path) -> None:
    (model.parent / "folder").mkdir()
    refused(model, model.parent / "folder", InvalidRequest, "is a directory", 2)
    refused(model, model.parent / "nowhere" / "a.gguf", InvalidRequest, "there is no folder", 2)
    refused(model, model / "a.gguf", InvalidRequest, "there is no folder", 2)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_devices_and_pipes(model: Path) -> None:
    os.mkfifo(model.with_name("pipe"))
    for target in (Path("/dev/null"), model.with_name("pipe")):
        refused(model, target, InvalidRequest, "is a device or a pipe", 2)


def test_no_permission(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    refused(model, model.with_name("out.gguf"), ResourceError, "no permission to write into", 4)


def test_no_space(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10**6, 10**6 - 100, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    refused(model, model.with_name("out.gguf"), ResourceError, r"[\d,]+ bytes are needed, 100 are free", 4)
