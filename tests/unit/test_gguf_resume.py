"""Writing that is stopped and gone on with: byte for byte the same files, and no trust in what is found."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.errors import Cancelled, InvalidRequest, ResourceError
from halfbyte.formats.gguf import GGMLType, GGUFWriter, output
from halfbyte.formats.gguf.errors import WriteError

from ..faults import Disk, fail

SIZES = {"a": 100, "b": 4000, "c": 0, "d": 64, "e": 333}
MADE_OF = {"source": "1", "recipe": "x"}
Written = list[str]


@pytest.fixture(autouse=True)
def claim_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """In no time: no power is cut here, so nobody waits for the disk."""
    monkeypatch.setattr(output, "SYNC_BYTES", 0)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def write(path: Path, stop_before: str = "", error: BaseException | None = None, **options: Any) -> Written:
    """Write the tensors of SIZES; raise `error` before one of them. Returns those that were not there already."""
    writer = GGUFWriter(path, **{"made_of": MADE_OF, "split_max_tensors": 2, **options})
    writer.add("general.name", "x")
    for name, n in SIZES.items():
        writer.add_tensor(name, (n,), GGMLType.I8)
    written = []
    with writer.open():
        for name, n in SIZES.items():
            if name == stop_before and error is not None:
                raise error
            if not writer.is_written(name):
                writer.write_tensor(name, data_of(name, n))
                written.append(name)
    return written


def data_of(name: str, n: int) -> bytes:
    return np.random.default_rng(ord(name)).bytes(n)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that nothing stops: three shards."""
    folder = tmp_path_factory.mktemp("whole")
    assert write(folder / "m.gguf", made_of=None) == list(SIZES)
    return contents(folder)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """What is left when Ctrl-C comes before "d"."""
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "m.gguf", "d", KeyboardInterrupt())
    assert sorted(contents(tmp_path)) == [
        "m-00001-of-00003.gguf.partial", "m-00001-of-00003.gguf.partial.journal",
        "m-00002-of-00003.gguf.partial", "m-00003-of-00003.gguf.partial",
    ]  # fmt: skip
    return tmp_path


def test_it_goes_on_where_it_stopped(
    stopped: Path, whole: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    assert write(stopped / "m.gguf") == ["d", "e"]
    assert contents(stopped) == whole
    assert "resuming" in caplog.text


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("split", [None, 1])
def test_stopped_before_each_tensor(name: str, split: int | None, tmp_path: Path) -> None:
    write(tmp_path / "once.gguf", made_of=None, split_max_tensors=split)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "m.gguf", name, KeyboardInterrupt(), split_max_tensors=split)
    assert any(".partial" in left for left in contents(tmp_path)) == (name != "a")  # nothing to keep before the first
    assert write(tmp_path / "m.gguf", split_max_tensors=split) == list(SIZES)[list(SIZES).index(name) :]
    found = contents(tmp_path)
    assert {name: data for name, data in found.items() if name.startswith("m")} == {
        name.replace("once", "m"): data for name, data in found.items() if name.startswith("once")
    }


@pytest.mark.parametrize(("error", "stays"), [
    (KeyboardInterrupt(), True), (Cancelled("x"), True), (ResourceError("full"), True), (MemoryError(), True),
    (OSError(errno.EIO, "x"), True), (InvalidRequest("x"), False), (WriteError("x"), False), (ValueError(), False),
])  # fmt: skip
def test_what_stays_after_which_error(error: BaseException, stays: bool, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        write(tmp_path / "m.gguf", "d", error)
    assert bool(contents(tmp_path)) == stays
    with pytest.raises(type(error)):
        write(tmp_path / "n.gguf", "d", error, made_of=None)
    assert not any(name.startswith("n") for name in contents(tmp_path))


@pytest.mark.parametrize(("options", "words"), [
    ({"made_of": {**MADE_OF, "source": "2"}}, "made with another source"),
    ({"made_of": {"source": "2", "recipe": "y"}}, "made with another recipe and another source"),
    ({"alignment": 64}, "the new file is another one"),
])  # fmt: skip
def test_something_else_begins_anew(
    options: dict[str, Any], words: str, stopped: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    assert write(stopped / "m.gguf", **options) == list(SIZES)
    assert words in caplog.text
    (tmp_path / "fresh").mkdir()
    write(tmp_path / "fresh" / "m.gguf", **{**options, "made_of": None})
    assert contents(stopped) == contents(tmp_path / "fresh")


def test_without_made_of_it_begins_anew_and_leaves_no_journal(stopped: Path, whole: dict[str, bytes]) -> None:
    assert write(stopped / "m.gguf", made_of=None) == list(SIZES)
    assert contents(stopped) == whole


def restored(folder: Path, files: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def test_a_damaged_journal_is_not_trusted(tmp_path: Path) -> None:
    """Cut at every byte, and a flipped bit in every second one: what is left of its claims holds, or nothing does."""
    path, journal, seen = tmp_path / "m.gguf", "m.gguf.partial.journal", set()
    write(path, split_max_tensors=None)
    whole = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write(path, "d", KeyboardInterrupt(), split_max_tensors=None)
    files = contents(tmp_path)
    good = files[journal]
    damaged = [good[:n] for n in range(len(good))]
    damaged += [good[:i] + bytes([good[i] ^ 1 << i % 8]) + good[i + 1 :] for i in range(0, len(good), 2)]
    for data in [*damaged, good * 3, b"\n" * 1000, b"[" * 100_000]:
        restored(tmp_path, {**files, journal: data})
        seen.add(len(write(path, split_max_tensors=None)))
        assert contents(tmp_path) == whole
    assert seen == {2, 3, 4, 5}


def test_a_damaged_partial_file_is_not_trusted(stopped: Path, whole: dict[str, bytes]) -> None:
    files = contents(stopped)
    first = "m-00001-of-00003.gguf.partial"
    n = len(files[first])
    for i in range(0, n, 97):
        for data in (files[first][:i], files[first][:i] + bytes([files[first][i] ^ 4]) + files[first][i + 1 :]):
            restored(stopped, {**files, first: data})
            assert len(write(stopped / "m.gguf")) in (3, 4, 5)
            assert contents(stopped) == whole
    for name in files:
        restored(stopped, {other: data for other, data in files.items() if other != name})
        write(stopped / "m.gguf")
        assert contents(stopped) == whole


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("resume", [True, False])
def test_every_call_that_fails(code: int, resume: bool, tmp_path: Path, whole: dict[str, bytes]) -> None:
    """Names hold the complete new file or none, errors are typed, and running again ends with the same files."""
    options = {"made_of": MADE_OF if resume else None}
    with Disk() as disk:
        write(tmp_path / "m.gguf", **options)
    calls, resumed = disk.calls, 0
    assert {"open", "ftruncate", "write", "fsync", "replace"} <= set(calls)
    for number, name in enumerate(calls):
        restored(tmp_path, {})
        try:
            with Disk(number, fail(code)):
                write(tmp_path / "m.gguf", **options)
        except (ResourceError, WriteError) as error:
            assert isinstance(error, ResourceError) == (code == errno.ENOSPC) or name == "replace"
        left = contents(tmp_path)
        assert all(whole[n] == data for n, data in left.items() if n in whole)
        # A refused rename leaves complete files; otherwise only what can be gone on with stays.
        if not resume and "replace" not in calls[: number + 1]:
            assert left == {}
        resumed += len(write(tmp_path / "m.gguf", **options)) < len(SIZES)
        assert contents(tmp_path) == whole
    assert (resumed > 10) == resume


def test_the_disk_is_full_before_the_first_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("space is reserved otherwise here")
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: fail(errno.ENOSPC)())
    with pytest.raises(ResourceError, match=r"disk is full: [\d,]+ more bytes are needed, [\d,]+ are free"):
        write(tmp_path / "m.gguf")
    assert contents(tmp_path) == {}
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: fail(errno.EOPNOTSUPP)())
    assert write(tmp_path / "m.gguf") == list(SIZES)


def test_space_that_is_taken_already_is_not_asked_for_again(
    stopped: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk with little more than nothing free is enough for the rest of a file whose space was reserved."""
    asked = []
    monkeypatch.setattr(output, "check_free_space", lambda path, needed: asked.append(needed))
    write(stopped / "m.gguf")
    assert asked[0] < sum(map(len, whole.values()))


def test_a_full_disk_when_going_on_keeps_what_is_there(
    stopped: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(stopped)._replace(free=0)
    with monkeypatch.context() as patched:
        patched.setattr("halfbyte.formats.gguf.durable.shutil.disk_usage", lambda path: usage)
        patched.setattr("halfbyte.formats.gguf.durable.allocated", lambda fd, size: 0)
        with pytest.raises(ResourceError, match="0 are free"):
            write(stopped / "m.gguf")
    assert write(stopped / "m.gguf") == ["d", "e"]
    assert contents(stopped) == whole


def test_ctrl_c_while_what_is_there_is_checked(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(stopped)

    def interrupt(*_: object) -> Iterator[int]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(output, "count_whole", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write(stopped / "m.gguf")
    assert contents(stopped) == before


def test_verify_reads_everything_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "good.gguf", verify=True, made_of=None, split_max_tensors=None)
    finish = output._finish

    def damage(file: Any) -> None:
        finish(file)
        with open(file.partial, "r+b") as partial:
            partial.seek(-1, os.SEEK_END)
            partial.write(b"\1")

    monkeypatch.setattr(output, "_finish", damage)
    with pytest.raises(WriteError, match="'b' is not on the disk as it was written"):
        write(tmp_path / "bad.gguf", verify=True)
    assert list(contents(tmp_path)) == ["good.gguf"]


def test_two_at_once(tmp_path: Path, whole: dict[str, bytes]) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", made_of=MADE_OF, split_max_tensors=2)
    for name, n in SIZES.items():
        writer.add_tensor(name, (n,), GGMLType.I8)
    with pytest.raises(KeyboardInterrupt), writer.open():
        writer.write_tensor("a", data_of("a", SIZES["a"]))
        with pytest.raises(WriteError, match="another process"):
            write(tmp_path / "m.gguf")
        raise KeyboardInterrupt
    assert len(contents(tmp_path)) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="no such files there")
def test_targets_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    os.mkfifo(tmp_path / "m.gguf.partial")
    os.mkfifo(tmp_path / "j.gguf.partial.journal")
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "f.gguf.partial").mkdir()
    (tmp_path / "l.gguf.partial").symlink_to("elsewhere")
    before = sorted(path.name for path in tmp_path.iterdir())
    for name, words in (("pipe", "not a regular file"), ("m", "not a regular file"), ("j", "not a regular file"),
                        ("folder", "is a directory"), ("f", "f.gguf.partial is not a regular file; remove it"),
                        ("l", "l.gguf.partial is not a regular file; remove it")):  # fmt: skip
        with pytest.raises(WriteError, match=words):
            write(tmp_path / f"{name}.gguf", split_max_tensors=None)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert stat.S_ISFIFO((tmp_path / "pipe.gguf").stat().st_mode)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    for name, old in (("old.gguf", b"old"), ("new.gguf", None)):
        if old:
            (tmp_path / "disk" / name).write_bytes(old)
        (tmp_path / name).symlink_to(Path("disk", name))
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / name, "d", KeyboardInterrupt(), split_max_tensors=None)
        assert (tmp_path / "disk" / f"{name}.partial").exists()  # on the same disk as the file that it becomes
        assert write(tmp_path / name, split_max_tensors=None) == ["d", "e"]
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "disk" / name).stat().st_size > sum(SIZES.values())
    (tmp_path / "loop.gguf").symlink_to("loop.gguf")
    with pytest.raises(WriteError, match=r"loop\.gguf"):
        write(tmp_path / "loop.gguf", split_max_tensors=None)
