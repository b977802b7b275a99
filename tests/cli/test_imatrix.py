"""`halfbyte imatrix` as a person uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from halfbyte.converters.imatrix import Sums

from ..switches import needs_kernels
from .conftest import Halfbyte

pytestmark = needs_kernels
TEXT = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. " * 30
WINDOW = ("--context", "64")


@pytest.fixture(autouse=True)
def text(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)


def test_a_matrix_that_quantize_takes(halfbyte: Halfbyte, tmp_path: Path) -> None:
    done = halfbyte("imatrix", "stories260k", "text.txt", *WINDOW, "--chunks", "4", "--json")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert (about["output"], about["unused_experts"]) == ("stories260k.imatrix.gguf", 0)
    assert (about["chunks"], about["context"], about["tensors"]) == (4, 64, 35)
    sums = Sums.read(tmp_path / about["output"])
    assert all((count == 4 * 64).all() for count in sums.counts.values())
    assert halfbyte("quantize", "stories260k", "IQ4_NL", "-o", "a.gguf", "--imatrix", about["output"]).returncode == 0
    again = halfbyte("imatrix", "stories260k", "text.txt", *WINDOW)
    assert again.returncode == 2 and "exists" in again.stderr


def test_resumed_and_merged_are_as_at_once(halfbyte: Halfbyte, tmp_path: Path) -> None:
    def run(*arguments: str) -> Sums:
        done = halfbyte("imatrix", "stories260k", "text.txt", *WINDOW, "--threads", "1", *arguments)
        assert done.returncode == 0, done.stderr
        return Sums.read(tmp_path / done.stdout.splitlines()[-1])

    whole = run("--chunks", "5", "-o", "whole.gguf")
    run("--chunks", "2", "-o", "part.gguf")
    resumed = run("--chunks", "5", "-o", "part.gguf", "--resume")
    merged = run("--chunks", "5", "-o", "twice.gguf", "--merge", "whole.gguf")
    assert (resumed.chunks, merged.chunks) == (5, 10)
    for name, squares in whole.squares.items():
        np.testing.assert_allclose(resumed.squares[name], squares, rtol=1e-5)
        np.testing.assert_allclose(merged.squares[name], 2 * squares, rtol=1e-5)
    old = run("--chunks", "2", "-o", "old.dat", "--merge", "whole.gguf")
    assert old.chunks == 7
    both = run("--chunks", "3", "-o", "both.gguf", "--merge", "old.dat")
    for name, means in whole.means().items():  # weighted by rows, not by files
        np.testing.assert_array_equal(both.counts[name], [10 * 64])
        assert both.means()[name].shape == means.shape
    refused = halfbyte("imatrix", "stories260k", "text.txt", *WINDOW, "-o", "old.dat", "--resume")
    assert refused.returncode == 2 and "--resume needs GGUF" in refused.stderr
    other = halfbyte("imatrix", "stories260k", "text.txt", "--context", "32", "-o", "part.gguf", "--resume")
    assert other.returncode == 2 and "cannot be gone on with" in other.stderr


# The program, which dies when it has saved what it found so far.
DIES = """
import os, sys
from halfbyte.converters.imatrix import Sums
from halfbyte.tools.cli import main
write = Sums.write
def once(self, path, **options):
    write(self, path, **options)
    os._exit(9)
Sums.write = once
main(sys.argv[1:])
"""


def test_what_is_unfinished_has_another_name(
    halfbyte: Halfbyte, environment: dict[str, str], tmp_path: Path
) -> None:
    """A run that is to replace a file, and is killed, has not touched it; going on is as never having stopped."""
    words = ("imatrix", "stories260k", "text.txt", *WINDOW, "--threads", "1")
    assert halfbyte(*words, "--chunks", "3", "-o", "all.gguf").returncode == 0
    before, saved = (tmp_path / "all.gguf").read_bytes(), tmp_path / "all.gguf.sums.partial"
    command = [sys.executable, "-c", DIES, *words, "-o", "all.gguf", "--overwrite"]
    killed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert killed.returncode == 9 and saved.exists()
    assert (tmp_path / "all.gguf").read_bytes() == before
    there = halfbyte(*words, "-o", "all.gguf")
    assert there.returncode == 2 and "all.gguf.sums.partial exists; --resume it" in there.stderr
    assert halfbyte(*words, "--chunks", "13", "-o", "all.gguf", "--resume").returncode == 0
    assert halfbyte(*words, "--chunks", "13", "-o", "once.gguf").returncode == 0
    resumed, once = (Sums.read(tmp_path / name) for name in ("all.gguf", "once.gguf"))
    assert resumed.chunks == 13 and not saved.exists()
    for name, squares in once.squares.items():
        np.testing.assert_array_equal(resumed.squares[name], squares)


def test_another_model_of_the_same_shape_is_another_model(halfbyte: Halfbyte, tmp_path: Path) -> None:
    for recipe, name in (("Q8_0", "a.gguf"), ("Q8_0", "b.gguf")):
        assert halfbyte("quantize", "stories260k", recipe, "-o", name).returncode == 0
    data = bytearray((tmp_path / "b.gguf").read_bytes())
    data[-7] ^= 1
    (tmp_path / "b.gguf").write_bytes(data)
    words = ("text.txt", *WINDOW, "-o", "sums.gguf")
    assert halfbyte("imatrix", "a.gguf", *words, "--chunks", "1").returncode == 0
    other = halfbyte("imatrix", "b.gguf", *words, "--chunks", "2", "--resume")
    assert other.returncode == 2 and "is of another model, text or window" in other.stderr


def test_what_goes_wrong(halfbyte: Halfbyte, tmp_path: Path) -> None:
    assert halfbyte("imatrix", "stories260k", "nowhere.txt").returncode == 2
    short = halfbyte("imatrix", "stories260k", "text.txt", "--context", "5000", "--chunks", "1")
    assert short.returncode != 0 and short.stderr.startswith("error: ")
    (tmp_path / "short.txt").write_text("Once")
    done = halfbyte("imatrix", "stories260k", "short.txt", *WINDOW)
    assert done.returncode == 2 and "one window needs 64" in done.stderr
    folder = halfbyte("imatrix", "stories260k", "text.txt", *WINDOW, "-o", "nowhere/a.gguf")
    assert folder.returncode == 2 and "there is no folder" in folder.stderr
    assert not list(tmp_path.glob("*.gguf"))
    other = Sums(["another model"], chunks=1)
    other.add("blk.0.attn_q.weight", np.ones((1, 65), np.float32))
    other.write(tmp_path / "other.gguf")
    merged = halfbyte("imatrix", "stories260k", "text.txt", *WINDOW, "-o", "a.gguf", "--merge", "other.gguf")
    assert merged.returncode == 2
    assert merged.stderr.startswith("error: other.gguf has 65 numbers for 'blk.0.attn_q.weight', not 64: ")
    assert not (tmp_path / "a.gguf").exists()
