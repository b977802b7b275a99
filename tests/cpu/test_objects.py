"""The kernel cache survives whatever a disk or another user does to it (AT-32)."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from subprocess import PIPE, Popen

import halfbyte
import pytest
from halfbyte.runtime.backends.base import CancelFlag
from halfbyte.runtime.backends.cpu import compile as compiler
from halfbyte.runtime.backends.cpu import objects
from halfbyte.runtime.settings import child_environment

from ..switches import races


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel cache of this test's own."""
    monkeypatch.setenv("HALFBYTE_HOME", str(tmp_path))
    objects.kernel_dir.cache_clear()
    monkeypatch.setattr(objects, "_addresses", {})
    yield tmp_path
    objects.kernel_dir.cache_clear()


def _file(name: str) -> Path:
    return objects.kernel_dir() / f"{name}.o"


def test_a_kernel_is_compiled_once(cache: Path) -> None:
    counts: list[tuple[int, int]] = []
    assert compiler.ensure_compiled(["add", "scale"], workers=2, report=lambda *c: counts.append(c)) == 2
    assert counts == [(0, 2), (1, 2), (2, 2)]
    assert compiler.ensure_compiled(["add", "scale"], workers=2) == 0
    assert objects.load("add") == objects.load("add") != objects.load("scale")


@pytest.mark.parametrize("damage", ["truncated", "zeroed", "garbage", "empty", "other kernel version"])
def test_a_damaged_file_is_compiled_again(cache: Path, damage: str) -> None:
    compiler.ensure_compiled(["add"], workers=1)
    file = _file("add")
    whole = file.read_bytes()
    broken = {
        "truncated": whole[: len(whole) // 2],
        "zeroed": bytes(len(whole)),
        "garbage": os.urandom(len(whole)),
        "empty": b"",
        "other kernel version": b"halfbyte kernel 0\n" + whole[18:],
    }[damage]
    file.write_bytes(broken)
    with pytest.raises(objects.KernelError, match="add is not compiled"):
        objects.load("add")
    assert compiler.ensure_compiled(["add"], workers=1) == 1
    assert objects.unpack(file.read_bytes()) is not None
    objects.load("add")


def test_every_flipped_byte_is_noticed() -> None:
    data = objects.pack("symbol", b"some code")
    assert objects.unpack(data) == ("symbol", b"some code")
    for i in range(len(data)):
        assert objects.unpack(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]) is None


@pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX")
def test_the_directory_is_private(cache: Path) -> None:
    assert stat.S_IMODE(objects.kernel_dir().stat().st_mode) == 0o700
    objects.kernel_dir().chmod(0o777)
    objects.kernel_dir.cache_clear()
    assert stat.S_IMODE(objects.kernel_dir().stat().st_mode) == 0o700


@pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX")
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_what_others_could_have_planted_is_not_run(cache: Path, mode: int) -> None:
    folder = objects.kernel_dir()
    objects.write(folder, "add", objects.pack("add", b"planted"))
    assert objects.read("add") is not None
    folder.chmod(mode)
    objects.kernel_dir.cache_clear()
    assert objects.read("add") is None
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX")
def test_a_directory_that_cannot_be_closed_to_others_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that knows no modes."""
    folder = objects.kernel_dir()
    folder.chmod(0o777)
    objects.kernel_dir.cache_clear()
    monkeypatch.setattr(Path, "chmod", lambda self, mode: None)
    assert objects.kernel_dir() != folder


@pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX")
def test_a_file_that_others_can_write_is_not_read(cache: Path) -> None:
    objects.write(objects.kernel_dir(), "add", objects.pack("add", b"code"))
    _file("add").chmod(0o620)
    assert objects.read("add") is None
    _file("add").chmod(0o600)
    assert objects.read("add") == ("add", b"code")


@pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX")
def test_a_file_of_another_user_is_not_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects.write(objects.kernel_dir(), "add", objects.pack("add", b"code"))
    other = _file("add").stat().st_uid + 1
    monkeypatch.setattr(os, "getuid", lambda: other)  # after kernel_dir() found the directory to be its own
    assert objects.read("add") is None


@pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX")
def test_a_directory_of_another_user_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = objects.kernel_dir()
    refused.chmod(0o777)
    objects.kernel_dir.cache_clear()
    monkeypatch.setattr(os, "getuid", lambda: refused.stat().st_uid + 1)
    assert objects.kernel_dir() != refused
    assert stat.S_IMODE(refused.stat().st_mode) == 0o777, "nothing of another user's is changed"


def test_an_unwritable_home_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    monkeypatch.setenv("HALFBYTE_HOME", str(blocked))
    monkeypatch.setattr(objects, "_addresses", {})
    objects.kernel_dir.cache_clear()
    try:
        assert compiler.ensure_compiled(["add"], workers=1) == 1
        objects.load("add")
    finally:
        objects.kernel_dir.cache_clear()


@pytest.mark.parametrize("name", ["grids.py", "signs.py", "iq.py", "fp4.py", "encode.py", "lattice.py"])
def test_what_kernels_hold_decides_the_directory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of block layouts are constants of kernels: another table is another kernel."""
    before, read = objects.fingerprint.__wrapped__(), Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read(self) + b"#" * (self.name == name))
    assert objects.fingerprint.__wrapped__() != before


def test_a_cache_that_was_emptied_meanwhile_is_filled_again(cache: Path) -> None:
    assert compiler.ensure_compiled(["add"], workers=1) == 1
    shutil.rmtree(cache / "kernels")
    assert compiler.ensure_compiled(["add"], workers=1) == 1
    assert _file("add").is_file()


def test_two_processes_fill_one_cache(cache: Path) -> None:
    code = (
        "from halfbyte.runtime.backends.cpu.compile import ensure_compiled as e, objects as o;"
        "e(['add', 'scale', 'rms_norm'], workers=2); [o.load(n) for n in ('add', 'scale', 'rms_norm')]"
    )
    children = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)]
    for child in children:
        assert child.communicate(timeout=120)[1] == b""
        assert child.returncode == 0
    assert sorted(p.name for p in objects.kernel_dir().iterdir()) == ["add.o", "rms_norm.o", "scale.o"]


RACER = """
import sys
from halfbyte.runtime.backends.cpu import compile, objects

for line in sys.stdin:
    objects.kernel_dir.cache_clear()
    objects._addresses.clear()
    compiled = compile.ensure_compiled(["add"], workers=1)
    print(compiled, objects.load("add") != 0, objects.kernel_dir(), flush=True)
"""


def test_two_processes_meet_an_empty_cache_at_once(cache: Path) -> None:
    """Again and again (HALFBYTE_TEST_RACES times): both want the one kernel that is missing, and both get it."""
    folder = objects.kernel_dir()
    command = [sys.executable, "-c", RACER]
    children = [Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, bufsize=1) for _ in range(2)]
    try:
        for race in range(races()):
            shutil.rmtree(cache / "kernels")
            for child in children:
                child.stdin.write("now\n")
            answers = [child.stdout.readline().split(maxsplit=2) for child in children]
            assert all(answer[1:] == ["True", f"{folder}\n"] for answer in answers), (race, answers)
            assert {answer[0] for answer in answers} in ({"1"}, {"0", "1"}), (race, answers)
            assert [path.name for path in folder.iterdir()] == ["add.o"], race
            assert objects.read("add") is not None, race
    finally:
        ends = [child.communicate(timeout=60) for child in children]
    assert ends == [("", "")] * 2
    assert [child.returncode for child in children] == [0, 0]


def test_nothing_is_written_beside_the_package(tmp_path: Path) -> None:
    """From an installation that cannot be written to: a kernel is compiled and a model runs (AT-32)."""
    site, home = tmp_path / "site", tmp_path / "home"
    package = Path(halfbyte.__file__).parent
    for room in ("formats", "runtime", "tools"):
        shutil.copytree(package / room, site / "halfbyte" / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("__init__.py", "__main__.py"):
        shutil.copy(package / file, site / "halfbyte")
    paths = [site, *site.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)  # root may write all the same: therefore the comparison
    before = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}
    code = (
        "import halfbyte; from halfbyte.runtime.backends.cpu.compile import ensure_compiled as e, objects as o;"
        "print(halfbyte.__file__); e(['add'], workers=1); o.load('add');"
        "model = halfbyte.Model.load('stories260k', backend='reference');"
        "print(model.generate('Once', max_tokens=2, temperature=0).read()); model.close()"
    )
    changes = {"PYTHONPATH": str(site), "HALFBYTE_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        command, environment = [sys.executable, "-c", code], child_environment(**changes)
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        after = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in (site, *site.rglob("*"))}
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)  # so that pytest can remove them
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(str(site)), "the copy is what ran"
    assert after == before
    assert list(home.glob("kernels/*/add.o"))


def test_a_kernel_that_does_not_exist_says_so(cache: Path) -> None:
    with pytest.raises(objects.KernelError, match=r"kernel nonsense did not compile: KeyError"):
        compiler.ensure_compiled(["nonsense"], workers=1)


@pytest.fixture
def patience() -> CancelFlag:
    """Ends a wait that has no end."""
    flag = CancelFlag()
    timer = threading.Timer(120, flag.set)
    timer.start()
    yield flag
    timer.cancel()


def test_a_compiler_process_that_cannot_start_ends_the_wait(
    cache: Path, monkeypatch: pytest.MonkeyPatch, patience: CancelFlag
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(compiler.subprocess, "Popen", refuse)
    with pytest.raises(objects.KernelError, match="Resource temporarily unavailable"):
        compiler.ensure_compiled(["add", "scale"], workers=2, cancel=patience)


def test_a_compiler_process_may_say_much(cache: Path, monkeypatch: pytest.MonkeyPatch, patience: CancelFlag) -> None:
    monkeypatch.setenv("PYTHONVERBOSE", "1")  # more than a pipe holds
    assert compiler.ensure_compiled(["add"], workers=1, cancel=patience) == 1


def test_loading_kernels_does_not_import_numba(cache: Path) -> None:
    compiler.ensure_compiled(["add"], workers=1)
    code = (
        "import sys; from halfbyte.runtime.backends.cpu import objects; objects.load('add');"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_frozen_program_compiles_in_its_own_process(cache: Path) -> None:
    """There `sys.executable` is the program itself, which must not be started a second time."""
    code = (
        "import sys; sys.frozen = True; sys.executable = '/no/such/program';"
        "from halfbyte.runtime.backends.cpu.compile import ensure_compiled as e, objects as o;"
        "print(e(['add', 'scale'], workers=2)); o.load('add')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "2"


def test_a_child_of_another_version_compiles_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an update under a running program, new kernels must not enter the old program's cache."""
    monkeypatch.setattr(objects, "fingerprint", lambda: "0123456789abcdef0123")
    with pytest.raises(objects.KernelError, match="start it again"):
        compiler.ensure_compiled(["add"], workers=1)


def test_what_numba_is_told_elsewhere_is_not_for_kernels(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NUMBA_DISABLE_JIT", "NUMBA_DUMP_BYTECODE"):
        monkeypatch.setenv(name, "1")
    assert compiler.ensure_compiled(["add"], workers=1) == 1
