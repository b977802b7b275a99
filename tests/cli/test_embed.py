"""`halfbyte embed`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte import Model
from halfbyte.runtime.engine import embedding
from halfbyte.runtime.models import hparams
from halfbyte.tools.commands import embed

from tests.builders import write_embedding_model
from tests.tolerances import BLAS_SUM

REFERENCE = ("--backend", "reference")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedding_model(tmp_path_factory.mktemp("m") / "bert.gguf")


def test_lines_json_and_library_agree(halfbyte: Any, path: Path) -> None:
    with Model.load(path, backend="reference") as model:
        expected = model.embed(["a b c", "x"])
    lines = halfbyte("embed", path, "a b c", "x", *REFERENCE).stdout.splitlines()
    assert np.abs(np.array([line.split() for line in lines], float) - expected).max() < BLAS_SUM
    found = json.loads(halfbyte("embed", path, "--json", *REFERENCE, stdin="a b c\r\nx\n").stdout)
    assert np.abs(np.array(found.pop("embeddings")) - expected).max() < BLAS_SUM
    assert found == {"model": "bert", "pooling": "mean", "normalized": True}


def test_pooling_and_length(halfbyte: Any, path: Path) -> None:
    words = ("embed", path, "a b", "--json", "--pooling", "none", "--no-normalize", *REFERENCE)
    found = json.loads(halfbyte(*words).stdout)
    assert (found["pooling"], found["normalized"]) == ("none", False)
    assert np.shape(found["embeddings"]) == (4, 96)  # the text's own tokens between [CLS] and [SEP]
    assert not np.allclose(np.linalg.norm(found["embeddings"], axis=1), 1)


def test_wrong_uses(halfbyte: Any, path: Path) -> None:
    nothing = halfbyte("embed", path, *REFERENCE)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "no text" in nothing.stderr
    generating = halfbyte("run", path, "a", *REFERENCE)
    assert (generating.returncode, generating.stdout) == (5, "")
    assert "makes embeddings" in generating.stderr
    other = halfbyte("embed", "stories260k", "Once", *REFERENCE)
    assert (other.returncode, other.stdout) == (5, "")


def test_the_names_of_poolings_are_the_same_everywhere() -> None:
    """The command must not import the engine to know its options."""
    assert set(embed.POOLINGS) == set(hparams.POOLINGS) == set(embedding.POOLINGS)
