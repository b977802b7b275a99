"""Quantizing that ends early: the target is what it was before or the complete new file, and the same call goes on."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from halfbyte.converters.quantize import Importance, quantize
from halfbyte.formats.errors import Cancelled, HalfbyteError, ResourceError
from halfbyte.formats.gguf import output
from halfbyte.formats.gguf.errors import WriteError
from halfbyte.formats.quants import NotFiniteError
from halfbyte.runtime.backends.base import CancelFlag

from ..faults import Disk, fail
from ..recipe_models import importance_of, write
from .killing import small_model
from .test_quantize import model_of

ROOT = Path(__file__).parents[2]
OLD = b"what was there before"
KILLS, KILLED_PROGRAMS = 200, 4


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "model.gguf")


@pytest.fixture
def new(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The file of a run that nothing stops. Every tensor is claimed at once."""
    monkeypatch.setattr(output, "SYNC_BYTES", 0)
    quantize(model, tmp_path / "out.gguf", "Q4_0")
    return (tmp_path / "out.gguf").read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_killed_at_200_moments(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.quantize.killing", str(tmp_path), str(KILLS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["right"]
    assert about["kills"] == KILLS and about["calls"] > 50 and about["resumed"] > KILLS // 4


def program(model: Path, target: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "halfbyte", "quantize", str(model), "Q4_0", "-o", str(target), "--overwrite"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=model.parent)


def test_the_program_killed_at_any_moment(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", "shared")
    model, target, random_moments = tmp_path / "model.gguf", tmp_path / "out.gguf", random.Random(1)
    quantize(model, target, "Q4_0")
    new, begin = target.read_bytes(), time.monotonic()
    assert program(model, target).communicate()[1] == b""
    seconds = time.monotonic() - begin
    for number in range(KILLED_PROGRAMS):
        target.write_bytes(OLD)
        running = program(model, target)
        time.sleep(seconds * (number + random_moments.random()) / KILLED_PROGRAMS)
        running.kill()
        running.communicate()
        assert target.read_bytes() in (OLD, new)
    running = program(model, target)
    running.communicate()
    assert running.returncode == 0
    assert target.read_bytes() == new
    assert names(tmp_path) == ["model.gguf", "out.gguf"]


def test_every_call_that_fails(model: Path, new: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    target = tmp_path / "out.gguf"
    with Disk() as disk:
        quantize(model, target, "Q4_0", resume=True)
    for number in range(len(disk.calls)):
        target.write_bytes(OLD)
        try:
            with Disk(number, fail(errno.ENOSPC)):
                quantize(model, target, "Q4_0", resume=True)
        except (ResourceError, WriteError):
            assert target.read_bytes() in (OLD, new)
        else:
            assert target.read_bytes() == new  # a refusal that does no harm
        assert set(names(tmp_path)) <= {"model.gguf", "out.gguf", "out.gguf.partial", "out.gguf.partial.journal"}
        quantize(model, target, "Q4_0", resume=True)
        assert target.read_bytes() == new
        assert names(tmp_path) == ["model.gguf", "out.gguf"]


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Do something before a tensor is written."""
    real, seen = output.Output.write_tensor, iter(range(1000))

    def write_tensor(self: output.Output, *arguments: object) -> None:
        if next(seen) == number:
            act()
        real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(output.Output, "write_tensor", write_tensor)


@pytest.fixture
def stopped(model: Path, new: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a cancelled call left, after some tensors. The old target is still there."""
    flag, target = CancelFlag(), tmp_path / "out.gguf"
    target.write_bytes(OLD)
    with monkeypatch.context() as patched, pytest.raises(Cancelled):
        stop_at(patched, 5, flag.set)
        quantize(model, target, "Q4_0", cancel=flag, resume=True)
    assert target.read_bytes() == OLD
    assert names(tmp_path) == ["model.gguf", "out.gguf", "out.gguf.partial", "out.gguf.partial.journal"]
    return target


def test_the_rest_is_made_and_progress_begins_where_it_is(stopped: Path, model: Path, new: bytes) -> None:
    seen: list[tuple[str, int, int]] = []
    quantize(model, stopped, "Q4_0", resume=True, progress=lambda *state: seen.append(state))
    assert stopped.read_bytes() == new
    checked, made = ([s for s in seen if s[0] == stage] for stage in ("resume", "quantize"))
    assert len(checked) > 3 and checked[-1][1] == checked[-1][2]
    assert made[0][1] > made[0][2] / 4 and made[-1][1] == made[-1][2]


@pytest.mark.parametrize("what", ["recipe", "option", "importance", "source", "time", "partial"])
def test_something_else_starts_over(
    what: str, stopped: Path, model: Path, new: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    partial = stopped.with_name("out.gguf.partial")
    options: dict[str, object] = {"recipe": "Q4_0"}
    if what == "recipe":
        options = {"recipe": "Q5_0"}
    elif what == "option":
        options["allow_nonfinite"] = True
    elif what == "importance":
        options["importance"] = Importance(importance_of(model))
    elif what == "source":  # a weight in the middle, and the time of before
        about = model.stat()
        data = bytearray(model.read_bytes())
        data[-4000] ^= 1
        model.write_bytes(data)
        os.utime(model, ns=(about.st_atime_ns, about.st_mtime_ns))
    elif what == "time":
        os.utime(model)
    elif what == "partial":
        partial.write_bytes(b"GGUF, and something else")
    quantize(model, stopped, resume=True, **options)  # type: ignore[arg-type]
    assert "starting over" in caplog.text and "resuming" not in caplog.text
    quantize(model, model.with_name("once.gguf"), **options)  # type: ignore[arg-type]
    assert stopped.read_bytes() == model.with_name("once.gguf").read_bytes()


def test_an_error_that_stays_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "SYNC_BYTES", 0)
    x = np.ones((64, 64), np.float32)
    x[60, 3] = np.nan
    source = model_of(tmp_path / "a.gguf", x)
    monkeypatch.setattr("halfbyte.converters.quantize.run.PIECE_WEIGHTS", 64)
    with pytest.raises(NotFiniteError):
        quantize(source, tmp_path / "b.gguf", "Q4_0", resume=True)
    assert names(tmp_path) == ["a.gguf"]


def test_a_library_call_leaves_nothing(
    model: Path, new: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise ResourceError("full")

    stop_at(monkeypatch, 5, full)
    with pytest.raises(HalfbyteError, match="full"):
        quantize(model, tmp_path / "out.gguf", "Q4_0")
    assert names(tmp_path) == ["model.gguf", "out.gguf"]


# The program, with something that happens before its sixth tensor is written.
STOPPED = """
import errno, os, signal, sys
from halfbyte.formats.gguf import output
from halfbyte.tools.cli import main
from tests.faults import fail
output.SYNC_BYTES, real, seen = 0, output.Output.write_tensor, iter(range(1000))
def write_tensor(self, name, pieces):
    if next(seen) == 5:
        {act}
    real(self, name, pieces)
output.Output.write_tensor = write_tensor
os.chdir(sys.argv.pop(1))
main()
"""
FULL = """
        import io
        class Full(io.BytesIO):
            write = lambda self, data: fail(errno.ENOSPC)()
        self._files[0]._file = Full()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize(("act", "code", "words"), [
    ("os.kill(os.getpid(), signal.SIGINT)", 130, "interrupted"),
    ("os.kill(os.getpid(), signal.SIGTERM)", 143, "terminated"),
    (FULL, 4, "error: out.gguf: the disk is full: "),
])  # fmt: skip
def test_the_program_says_how_it_goes_on(
    act: str, code: int, words: str, model: Path, new: bytes, tmp_path: Path
) -> None:
    arguments = ["quantize", "model.gguf", "Q4_0", "-o", "out.gguf", "--overwrite"]
    (tmp_path / "out.gguf").write_bytes(OLD)
    command = [sys.executable, "-c", STOPPED.format(act=act), str(tmp_path), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert lines[:2] == [
        "what is done stays in out.gguf.partial; this goes on with it:", f"  halfbyte {' '.join(arguments)}",
    ]  # fmt: skip
    assert lines[2].startswith(words)
    assert (tmp_path / "out.gguf").read_bytes() == OLD
    assert names(tmp_path) == ["model.gguf", "out.gguf", "out.gguf.partial", "out.gguf.partial.journal"]
    again = subprocess.run(
        [sys.executable, "-m", "halfbyte", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert again.returncode == 0
    assert again.stderr.startswith("note: resuming out.gguf: ")
    assert (tmp_path / "out.gguf").read_bytes() == new
    assert names(tmp_path) == ["model.gguf", "out.gguf"]
