"""llama.cpp reads the files of every family and computes the logits of our reference. Needs llama-cpp-python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from halfbyte.formats.gguf import GGUFFile
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.models import build_model
from numpy.typing import NDArray

from ..builders import CASES, N_TOKENS, no_text, to_gguf, write
from ..models.otherwise import UNREAD
from ..models.running import N_PAGES, distance, prefill

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

# Its gelu goes through a table of float16, and is that of tanh where GPT-NeoX has the exact one.
TOLERANCE = 6e-4


def their_logits(path: Path, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    options = {"n_ctx": 64, "n_threads": 1, "type_k": 0, "type_v": 0}  # keys and values as float32
    model = llama_cpp.Llama(str(path), logits_all=True, verbose=False, n_gpu_layers=0, **options)
    model.eval(tokens.tolist())
    logits = np.array(model.scores[: len(tokens)], np.float32)
    model.close()
    return logits


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    keys, tensors = to_gguf(case)
    for key in UNREAD.get(name, ()):
        del keys[key]
    keys |= no_text(case.config["vocab_size"]) | {"general.name": "tiny"}  # some names mean something to it
    path = write(keys, tensors, tmp_path / "model.gguf")
    with GGUFFile.open(path, use_mmap=False) as file:
        ours = prefill(
            ReferenceBackend().compile(build_model(file).graph, n_pages=N_PAGES, max_tokens=N_TOKENS), case.tokens()
        )
    theirs = their_logits(path, case.tokens())
    assert distance(theirs, ours) < TOLERANCE
    assert np.array_equal(theirs.argmax(axis=1), ours.argmax(axis=1))
