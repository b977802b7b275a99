"""Vocabularies for the tests: real ones, xz-compressed in tests/fixtures/tokenizers."""

from __future__ import annotations

import lzma
from functools import cache
from pathlib import Path

import pytest
from halfbyte.formats.gguf.reader import GGUFFile
from halfbyte.runtime.tokenize import Tokenizer, tokenizer_from_metadata

FIXTURES = Path(__file__).parents[1] / "fixtures" / "tokenizers"
SEPARATOR = "\n__ggml_vocab_test__\n"


@cache
def load_fixture(name: str) -> Tokenizer:
    """The tokenizer of tests/fixtures/tokenizers/<name>.gguf.xz, loaded once."""
    data = lzma.decompress((FIXTURES / f"{name}.gguf.xz").read_bytes())
    with GGUFFile.from_buffer(data) as file:
        return tokenizer_from_metadata(file.metadata)


def read_vectors(inputs: Path, outputs: Path) -> list[tuple[str, list[int]]]:
    """Pairs of text and ids in llama.cpp's file format: after the last text there may be a separator."""
    texts = inputs.read_bytes().decode().removesuffix(SEPARATOR).split(SEPARATOR)
    lines = outputs.read_text(encoding="ascii").removesuffix("\n").split("\n")
    return [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines, strict=True)]


@pytest.fixture(params=["llama-spm", "gpt-2", "bert-bge"])
def real(request: pytest.FixtureRequest) -> Tokenizer:
    return load_fixture(request.param)


@pytest.fixture
def gpt2() -> Tokenizer:
    return load_fixture("gpt-2")


@pytest.fixture
def spm() -> Tokenizer:
    return load_fixture("llama-spm")
