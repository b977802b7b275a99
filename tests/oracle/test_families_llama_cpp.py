"""llama.cpp reads the files of every family and computes the logits of our reference. Needs llama-cpp-python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.gguf import GGUFFile
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.models import build_model
from numpy.typing import NDArray

from ..builders import CASES, N_TOKENS, to_gguf, write
from ..models.running import N_PAGES, distance, prefill

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

# Keys that our files have and that llama.cpp does not read for this architecture: both run without them.
UNREAD = {
    "mistral_window": ("llama.attention.sliding_window",),
    "starcoder2": ("starcoder2.attention.sliding_window",),
    "gemma2": ("gemma2.attention.scale",),
    "phi3_window": ("phi3.attention.sliding_window",),
}
# Where it parts from transformers, which the reference follows (tests/models/test_families.py).
OTHERWISE = {
    **dict.fromkeys(("llama_yarn", "qwen3_yarn"), "other angles from position 1 on"),
    "phi3_longrope_short": "contexts are whole multiples of 256, which is beyond what short factors are for",
}
# Its gelu goes through a table of float16, and is that of tanh where GPT-NeoX has the exact one.
TOLERANCE = 6e-4


def vocabulary(n: int) -> dict[str, Any]:
    """So many pieces that are no text, as llama.cpp wants to see some."""
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(3, n))],
        "tokenizer.ggml.scores": -np.arange(n, dtype=np.float32),
        "tokenizer.ggml.token_type": np.array([2, 3, 3] + [1] * (n - 3), np.int32),
    }


def their_logits(path: Path, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    options = {"n_ctx": 64, "n_threads": 1, "type_k": 0, "type_v": 0}  # keys and values as float32
    model = llama_cpp.Llama(str(path), logits_all=True, verbose=False, n_gpu_layers=0, **options)
    model.eval(tokens.tolist())
    logits = np.array(model.scores[: len(tokens)], np.float32)
    model.close()
    return logits


@pytest.mark.parametrize("name", [name for name in CASES if name not in OTHERWISE])
def test_logits(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    keys, tensors = to_gguf(case)
    for key in UNREAD.get(name, ()):
        del keys[key]
    keys |= vocabulary(case.config["vocab_size"]) | {"general.name": "tiny"}  # some names mean something to it
    path = write(keys, tensors, tmp_path / "model.gguf")
    with GGUFFile.open(path, use_mmap=False) as file:
        ours = prefill(
            ReferenceBackend().compile(build_model(file).graph, n_pages=N_PAGES, max_tokens=N_TOKENS), case.tokens()
        )
    theirs = their_logits(path, case.tokens())
    assert distance(theirs, ours) < TOLERANCE
    assert np.array_equal(theirs.argmax(axis=1), ours.argmax(axis=1))
