"""Run the real program in a child process, as a user's shell would."""

from __future__ import annotations

import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .. import switches

ROOT = Path(__file__).parents[2]
TOKENIZERS = ROOT / "tests" / "fixtures" / "tokenizers"
Halfbyte = Callable[..., "subprocess.CompletedProcess[str]"]
LOADING = ("run", "chat", "embed", "perplexity", "bench", "warmup")  # commands with --backend


@pytest.fixture(scope="session")
def compiled_home() -> Path:
    """The folder for compiled kernels of all tests (see tests/conftest.py)."""
    return Path(os.environ["HALFBYTE_HOME"])


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of the children: a hub that does not exist, no colours assumed."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "error"}


@pytest.fixture
def halfbyte(environment: dict[str, str], tmp_path: Path) -> Iterator[Halfbyte]:
    """halfbyte("inspect", file, stdin="...", env={...}) -> CompletedProcess. No terminal, and by default no stdin."""

    def run(
        *arguments: object, stdin: str | bytes = "", env: dict[str, str] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "halfbyte", *with_backend(arguments)],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env={**environment, **(env or {})},
            cwd=tmp_path,
            timeout=timeout,
            check=False,
        )
        texts = (data.decode("utf-8").replace("\r\n", "\n") for data in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, *texts)

    return run


def with_backend(arguments: tuple[object, ...]) -> list[str]:
    """A command's words, with the backend of this run of the tests where it loads a model and says none."""
    words = [*map(str, arguments)]
    if words and words[0] in LOADING and "--backend" not in words and switches.backend() != "cpu":
        words[1:1] = ["--backend", switches.backend()]
    return words


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    """A file with a GPT-2 vocabulary and no tensors."""
    path = tmp_path / "gpt-2.gguf"
    path.write_bytes(lzma.decompress((TOKENIZERS / "gpt-2.gguf.xz").read_bytes()))
    return path
