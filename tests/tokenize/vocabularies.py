"""Small vocabularies as metadata, and the committed results of the oracles."""

from __future__ import annotations

import json
import lzma
from functools import cache
from typing import Any

from halfbyte.runtime.tokenize import Tokenizer, tokenizer_from_metadata
from halfbyte.runtime.tokenize.bytelevel import BYTE_OF

from .conftest import FIXTURES

KEY = "tokenizer.ggml."


@cache
def synthetic() -> dict[str, Any]:
    """tests/fixtures/tokenizers/synthetic.json.xz; see tests/fixtures/make/tokenizers_vectors.py."""
    data: dict[str, Any] = json.loads(lzma.decompress((FIXTURES / "synthetic.json.xz").read_bytes()))
    return data


@cache
def synthetic_bpe(pre: str) -> Tokenizer:
    return tokenizer_from_metadata(synthetic()["byte_level"]["metadata"] | {KEY + "pre": pre})


def bpe_metadata(**changes: Any) -> dict[str, Any]:
    """256 bytes, one merge, two control tokens and a user-defined one; `changes` without the key prefix."""
    tokens = [*BYTE_OF, "th", "<|im_start|>", "<|im_end|>", "<tool>"]
    base = {
        "model": "gpt2",
        "pre": "qwen2",
        "tokens": tokens,
        "token_type": [1] * 257 + [3, 3, 4],
        "merges": ["t h"],
        "bos_token_id": 257,
        "eos_token_id": 258,
    }
    return {KEY + key: value for key, value in (base | changes).items() if value is not None}


def spm_metadata(**changes: Any) -> dict[str, Any]:
    """A LLaMA-like vocabulary of 265 tokens."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "b", "▁a", "ab", "▁ab"]
    base = {
        "model": "llama",
        "tokens": tokens,
        "scores": [0.0] * 259 + [-9.0, -8.0, -7.0, -3.0, -2.0, -1.0],
        "token_type": [2, 3, 3] + [6] * 256 + [1] * 6,
    }
    return {KEY + key: value for key, value in (base | changes).items() if value is not None}
