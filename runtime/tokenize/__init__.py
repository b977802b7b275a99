"""Tokenizers from GGUF metadata.

    tokenizer = load_tokenizer("model.gguf")
    ids = tokenizer.encode("Hello")
    text = tokenizer.decode(ids)

Reading order: vocabulary.py (keys, kinds.py, known_tokens.py), tokenizer.py (special tokens, encode, decode), and one
encoder per kind: bpe.py (with the table pretokenizers.py), sentence.py, wordpiece.py, rwkv.py, plamo2.py, hybriddna.py.
huggingface.py runs an embedded tokenizer.json where none of them would be right.
"""

from __future__ import annotations

from .load import load_tokenizer, tokenizer_from_metadata
from .stream import StreamDecoder
from .tokenizer import Tokenizer, whole_numbers

__all__ = ["StreamDecoder", "Tokenizer", "load_tokenizer", "tokenizer_from_metadata", "whole_numbers"]
