"""Tokenizers from files and metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ...formats.gguf.reader import GGUFFile
from .engine import Check
from .tokenizer import TextEncoder, Tokenizer
from .vocabulary import Vocabulary, read_vocabulary


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a GGUF file, which may hold a vocabulary and nothing else, or be any shard of a split model.

    Raises the errors of GGUFFile.open_first, TokenizerError (broken vocabulary) and UnsupportedError (unknown kind).
    """
    with GGUFFile.open_first(path) as file:
        return tokenizer_from_metadata(file.metadata)


def tokenizer_from_metadata(metadata: Mapping[str, Any], *, check: Check = lambda: None) -> Tokenizer:
    """The tokenizer described by `tokenizer.*` keys. Nothing of `metadata` is used later."""
    vocabulary = read_vocabulary(metadata)
    return Tokenizer(vocabulary, _encoder(vocabulary, check))


def _encoder(vocabulary: Vocabulary, check: Check) -> TextEncoder:
    """The engine packages are imported here, when the kind is known: each takes 20 to 30 ms."""
    if vocabulary.huggingface:
        from .huggingface import HuggingFaceEncoder

        return HuggingFaceEncoder(vocabulary, check)
    kind = vocabulary.kind.name
    if kind in ("llama", "t5"):
        from .sentence import SentenceEncoder

        return SentenceEncoder(vocabulary)
    if kind == "bert":
        from .wordpiece import WordPieceEncoder

        return WordPieceEncoder(vocabulary, check)
    if kind == "rwkv":
        from .rwkv import RwkvEncoder

        return RwkvEncoder(vocabulary)
    if kind == "plamo2":
        from .plamo2 import Plamo2Encoder

        return Plamo2Encoder(vocabulary)
    if kind == "hybriddna":
        from .hybriddna import HybridDnaEncoder

        return HybridDnaEncoder(vocabulary, check)
    from .bpe import BpeEncoder

    return BpeEncoder(vocabulary, check)
