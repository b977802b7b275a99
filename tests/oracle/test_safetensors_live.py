"""The verdicts of the safetensors reader beside those of the reference implementation, where that is installed.

    python -m tests.oracle.test_safetensors_live 20000     # so many mutated files
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from halfbyte.formats.errors import ModelFileError
from halfbyte.formats.safetensors import SafetensorsFile, errors

from ..unit.test_safetensors import GOOD, WRONG, file

SEEDS = [file(GOOD), file({"__metadata__": {"format": "pt"}, **GOOD}), *(content for content, _ in WRONG.values())]
# Pieces of headers, put where a mutation strikes: more of these than of random bytes reach the rules behind the syntax.
PIECES = [
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"0", b"1", b"9", b"-", b".", b"e", b"null", b"true", b" ", b"\\", b"\0",
    b"18446744073709551615", b"18446744073709551616", b"F32", b"U8", b"F4", b"BF16", b'"dtype"', b'"shape"',
    b'"data_offsets"', b'"__metadata__"', b"[0,24]", b"[24,29]", b"[]", b"{}",
]  # fmt: skip


def mutated(rng: np.random.Generator) -> bytes:
    """A seed with up to four changes in its header or its length."""
    content = bytearray(SEEDS[rng.integers(len(SEEDS))][:4096])
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(content)))
        kind = rng.integers(4)
        if kind == 0:
            content[at] = rng.integers(256)
        elif kind == 1:
            content[at:at] = PIECES[rng.integers(len(PIECES))]
        elif kind == 2:
            del content[at : at + int(rng.integers(1, 9))]
        else:
            piece = PIECES[rng.integers(len(PIECES))]
            content[at : at + len(piece)] = piece
        if not content:
            return b"{"
    if rng.random() < 0.7 and len(content) > 37:  # a length that is true again
        content[:8] = (len(content) - 8 - 29).to_bytes(8, "little")
    return bytes(content)


def verdicts(path: Path) -> tuple[ModelFileError | None, str | None]:
    """What we say, and what the reference says: None for a valid file."""
    from safetensors import SafetensorError, safe_open

    ours, theirs = None, None
    try:
        SafetensorsFile.open(path).close()
    except ModelFileError as error:
        ours = error
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        theirs = str(error)
    return ours, theirs


def disagreements(count: int, seed: int) -> list[tuple[bytes, str]]:
    """Files that one takes and the other refuses, but for what is stricter here: names twice, lists for objects."""
    rng, found = np.random.default_rng(seed), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated.safetensors"
        for _ in range(count):
            path.write_bytes(content := mutated(rng))
            ours, theirs = verdicts(path)
            stricter = isinstance(ours, errors.HeaderJsonError) and (
                "stands twice" in str(ours) or "described by an object" in str(ours)
            )
            if (ours is None) != (theirs is None) and not (stricter and theirs is None):
                found.append((content, f"ours: {ours}; theirs: {theirs}"))
    return found


@pytest.mark.parametrize("name", WRONG)
def test_the_reference_refuses_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(WRONG[name][0])
    ours, theirs = verdicts(path)
    assert ours is not None
    assert theirs is not None, ours


def test_mutated_files_get_the_same_verdict() -> None:
    pytest.importorskip("safetensors")
    assert disagreements(500, seed=5) == []


if __name__ == "__main__":
    wrong = disagreements(int(sys.argv[1]), seed=1)
    print(f"{sys.argv[1]} files, {len(wrong)} verdicts that differ")
    for content, what in wrong[:20]:
        print(content, what)
