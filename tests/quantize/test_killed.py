"""Quantizing that ends early: the target holds what it held before, or the complete new file."""

from __future__ import annotations

import errno
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from halfbyte.converters.quantize import quantize
from halfbyte.formats.errors import ResourceError
from halfbyte.formats.gguf.durable import DurableFile

from ..recipe_models import write

OLD = b"what was there before"
KILLS = 12


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write(tmp_path / "model.gguf", "shared")
    return tmp_path / "model.gguf"


def child(model: Path, target: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "halfbyte", "quantize", str(model), "Q4_0", "-o", str(target), "--overwrite"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=model.parent)


def test_killed_at_any_moment(model: Path, tmp_path: Path) -> None:
    target, random_moments = tmp_path / "out.gguf", random.Random(1)
    quantize(model, target, "Q4_0")
    new, begin = target.read_bytes(), time.monotonic()
    assert child(model, target).communicate()[1] == b""
    seconds, seen = time.monotonic() - begin, set()
    for number in range(KILLS):
        target.write_bytes(OLD)
        running = child(model, target)
        time.sleep(seconds * (number + random_moments.random()) / KILLS)
        running.kill()
        running.communicate()
        content = target.read_bytes()
        assert content in (OLD, new)
        seen.add(content)
    assert OLD in seen
    again = child(model, target)
    assert (again.communicate()[1], again.returncode) == (b"", 0)
    assert target.read_bytes() == new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf", "out.gguf"]


@pytest.mark.skipif(sys.platform == "win32", reason="a console process is interrupted otherwise there")
def test_interrupted(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    quantize(model, target, "Q4_0")
    new = target.read_bytes()
    target.write_bytes(OLD)
    running = child(model, target)
    time.sleep(0.4)
    running.send_signal(signal.SIGINT)
    running.communicate()
    assert running.returncode in (0, 130, -signal.SIGINT)
    assert target.read_bytes() in (OLD, new)


def test_every_write_that_fails(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, written = tmp_path / "out.gguf", DurableFile.write
    writes, fails_at = 0, -1

    def write_or_fail(self: DurableFile, data: Any) -> None:
        nonlocal writes
        writes += 1
        if writes == fails_at:
            raise ResourceError("the disk is full") from OSError(errno.ENOSPC, "no space")
        written(self, data)

    monkeypatch.setattr(DurableFile, "write", write_or_fail)
    quantize(model, target, "Q4_0")
    total, new = writes, target.read_bytes()
    assert total > 100
    target.write_bytes(OLD)
    for number in (*range(1, total, 17), total - 1, total):
        writes, fails_at = 0, number
        with pytest.raises(ResourceError, match="disk is full"):
            quantize(model, target, "Q4_0")
        assert target.read_bytes() == OLD
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf", "out.gguf"]
    writes, fails_at = 0, -1
    quantize(model, target, "Q4_0")
    assert target.read_bytes() == new
