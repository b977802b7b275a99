"""llama.cpp's tokenizer vectors: the vocabularies of tests/fixtures/tokenizers, each of which has to be there.

HALFBYTE_VOCAB_DIR names folders (separated as in PATH) of further ones, laid out as in llama.cpp's `models/`:
X.gguf with its texts in X.gguf.inp and the ids in X.gguf.out.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
from halfbyte import load_tokenizer

from ..switches import vocabulary_folders
from .conftest import FIXTURES, read_vectors

NAMES = (
    "bert-bge", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "llama-bpe", "llama-spm",
    "mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder",
)  # fmt: skip
LOSSY = {"bert-bge"}  # WordPiece loses case and spaces


def _committed(name: str) -> tuple[Path, Path, Path]:
    """Vocabulary, texts and ids; the texts are the same for most."""
    texts = FIXTURES / f"{name}.inp"
    return FIXTURES / f"{name}.gguf.xz", texts if texts.exists() else FIXTURES / "texts.inp", FIXTURES / f"{name}.out"


def _external() -> list[tuple[Path, Path, Path]]:
    """The same, of the files with vectors in the folders that the environment names."""
    paths = sorted(path for folder in vocabulary_folders() for path in folder.glob("*.gguf"))
    triples = [(path, path.with_name(f"{path.name}.inp"), path.with_name(f"{path.name}.out")) for path in paths]
    return [triple for triple in triples if triple[1].exists() and triple[2].exists()]


def unpack(packed: Path, folder: Path) -> Path:
    path = folder / packed.stem
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return path


@pytest.mark.parametrize("files", [*map(_committed, NAMES), *_external()], ids=lambda files: files[0].name)
def test_vectors(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    vocabulary, texts, ids = files
    vectors = read_vectors(texts, ids)
    assert len(vectors) >= 46
    if vocabulary.suffix == ".xz":
        vocabulary = unpack(vocabulary, tmp_path)
    tokenizer = load_tokenizer(vocabulary)
    (tmp_path / vocabulary.name).unlink(missing_ok=True)  # pytest keeps the folders of its last runs
    for text, wanted in vectors:
        assert tokenizer.encode(text, add_special=False) == wanted, ascii(text)
        if not any(name in vocabulary.name for name in LOSSY):
            assert tokenizer.decode(wanted) == text, ascii(text)


def test_every_committed_vocabulary_is_tested() -> None:
    for kind in (".gguf.xz", ".out"):
        assert {path.name.removesuffix(kind) for path in FIXTURES.glob(f"*{kind}")} == set(NAMES)
