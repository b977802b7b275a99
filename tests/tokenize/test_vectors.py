"""llama.cpp's tokenizer vectors: three vocabularies always, all in HALFBYTE_VOCAB_DIR when that is set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from halfbyte.runtime.tokenize import load_tokenizer

from .conftest import FIXTURES, load_fixture, read_vectors


@pytest.mark.parametrize("name", ["llama-spm", "gpt-2", "bert-bge"])
def test_committed_vocabulary(name: str) -> None:
    vectors = read_vectors(FIXTURES / "texts.inp", FIXTURES / f"{name}.out")
    assert len(vectors) >= 46
    tokenizer = load_fixture(name)
    for text, ids in vectors:
        assert tokenizer.encode(text, add_special=False) == ids, ascii(text)
        if name != "bert-bge":  # WordPiece loses case and spaces
            assert tokenizer.decode(ids) == text


def _external() -> list[Path]:
    folders = [Path(folder) for folder in os.environ.get("HALFBYTE_VOCAB_DIR", "").split(os.pathsep) if folder]
    return sorted(path for folder in folders for path in folder.glob("*.gguf") if Path(f"{path}.out").exists())


@pytest.mark.parametrize("path", _external(), ids=lambda path: path.name)
def test_external_vocabulary(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    vectors = read_vectors(Path(f"{path}.inp"), Path(f"{path}.out"))
    assert vectors
    for text, ids in vectors:
        assert tokenizer.encode(text, add_special=False) == ids, ascii(text)
