"""`halfbyte imatrix` as a person uses it."""

from __future__ import annotations

import json
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
