"""`halfbyte convert hf:OWNER/REPO`: a hub on this machine, which hangs up in the middle of the weights once."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from halfbyte.converters.convert import convert
from halfbyte.formats.errors import HalfbyteError
from halfbyte.formats.gguf import GGMLType, GGUFFile
from halfbyte.runtime.hub import resolve

from ..builders import CASES
from ..convert.checkpoints import write_folder
from .conftest import Halfbyte

COMMIT = "a" * 40
PADDING = 7_000_000  # numbers of 4 bytes: the hub's library keeps what came in pieces of 10 MB


class Hub(http.server.ThreadingHTTPServer):
    """Serves one folder as the repository test/tiny. `asked`: (path, range) of each request for a file's bytes."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.asked: list[tuple[str, str | None]] = []
        self.cuts = {"model.safetensors"}

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error here."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, files = self.path.partition("?")[0], self.server.files
        if "/tree/" in path:
            self.answer([{"type": "file", "path": name, "size": len(files[name]), "oid": COMMIT} for name in files])
        elif path.startswith("/api/models/"):
            self.answer({"id": "test/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})
        elif "/resolve/" in path and (name := path.rpartition("/")[2]) in files:
            self.send_file(name, files[name])
        else:
            self.answer({}, 404)

    def answer(self, content: object, status: int = 200) -> None:
        self.send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send_file(self, name: str, data: bytes) -> None:
        tag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked, is_head = self.headers.get("Range"), self.command == "HEAD"
        begin = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked and not is_head else 0  # type: ignore[index]
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        if not is_head:
            self.server.asked.append((name, asked))
        is_cut = not is_head and name in self.server.cuts
        self.send(206 if begin else 200, data[begin:], headers, len(data) // 2 if is_cut else None)
        if is_cut:
            self.server.cuts.discard(name)
            self.close_connection = True

    def send(self, status: int, body: bytes, headers: dict[str, str], most: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:most])


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    case = CASES["llama"]
    unread = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(PADDING, np.float32)}
    folder = write_folder(tmp_path / "repository", case.config, case.weights() | unread)
    tokens = ["[UNK]", "[CLS]", *(f"t{i}" for i in range(2, case.config["vocab_size"]))]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    (folder / "modeling.py").write_text("raise SystemExit('code from the hub was run')")
    (folder / "consolidated.safetensors").write_bytes(b"the same weights once more")
    server = Hub(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def environment(hub: Hub, folder: Path) -> dict[str, str]:
    """Of a child that shall find the hub, and keep what it downloads in the folder."""
    return {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1", "PYTHONWARNINGS": "default",
    }  # fmt: skip


def test_a_download_that_breaks_off_goes_on(hub: Hub, halfbyte: Halfbyte, tmp_path: Path) -> None:
    env = environment(hub, tmp_path)
    arguments = ("convert", "hf:test/tiny", "--type", "F16", "--no-verify", "-o", "tiny.gguf")
    for _ in range(2):  # a hub's library that does not try again by itself leaves what came for the next run
        done = halfbyte(*arguments, env=env)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    ranges = [asked for name, asked in hub.asked if name == "model.safetensors"]
    assert ranges[0] is None and len(ranges) == 2
    assert ranges[1] not in (None, "bytes=0-")
    assert not {"modeling.py", "consolidated.safetensors"} & {name for name, _ in hub.asked}
    again = halfbyte(*arguments, "--overwrite", env=env)
    assert again.returncode == 0, again.stderr
    assert len([name for name, _ in hub.asked if name == "model.safetensors"]) == 2
    away = {**env, "HF_ENDPOINT": "http://127.0.0.1:9"}
    offline = halfbyte("convert", "hf:test/tiny", *arguments[2:], "--overwrite", env=away)
    assert offline.returncode == 0, offline.stderr
    assert "test/tiny is taken as it was downloaded before" in offline.stderr
    local = halfbyte("convert", "repository", "--type", "F16", "--no-verify", "-o", "local.gguf")
    assert local.returncode == 0, local.stderr
    first, second = ((tmp_path / name).read_bytes() for name in ("tiny.gguf", "local.gguf"))
    assert first[-4096:] == second[-4096:]  # the tensors; names differ


def test_a_file_of_the_hub_is_a_source_as_well(hub: Hub, halfbyte: Halfbyte, tmp_path: Path) -> None:
    hub.files["tiny.gguf"] = Path(resolve("stories260k")).read_bytes()
    env = environment(hub, tmp_path)
    done = halfbyte("convert", "hf:test/tiny/tiny.gguf", "--type", "F16", env=env)
    assert done.returncode == 0, done.stderr
    assert [name for name, _ in hub.asked] == ["tiny.gguf"]
    with GGUFFile.open(tmp_path / "tiny-F16.gguf") as file:
        assert file.tensors["blk.0.ffn_up.weight"].type is GGMLType.F16


def test_a_folder_that_the_hubs_own_command_downloads(hub: Hub, halfbyte: Halfbyte, tmp_path: Path) -> None:
    """The commands of the README, where a hub is at hand: download, convert, run."""
    hub.cuts.clear()
    hf = shutil.which("hf", path=Path(sys.executable).parent)
    assert hf is not None, "huggingface_hub brings it"
    got = subprocess.run(
        [hf, "download", "test/tiny", "--local-dir", "Tiny"], env={**os.environ, **environment(hub, tmp_path)},
        cwd=tmp_path, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert got.returncode == 0, got.stderr
    done = halfbyte("convert", "Tiny", "--type", "Q8_0", "--output", "tiny.gguf")
    assert done.returncode == 0, done.stderr
    said = halfbyte("run", "tiny.gguf", "t5 t6", "--max-tokens", "2", "--temperature", "0")
    assert said.returncode == 0, said.stderr


def test_a_hub_that_is_not_there_is_said_at_once(halfbyte: Halfbyte) -> None:
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "PYTHONWARNINGS": "default"}
    done = halfbyte("convert", "hf:test/tiny", env=env)
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
    assert halfbyte("convert", "hf:tiny", env=env).returncode == 2


def test_the_function_takes_names_of_the_hub() -> None:
    with pytest.raises(HalfbyteError, match="'hf:tiny' is not of the form hf:OWNER/REPO"):
        convert("hf:tiny")
