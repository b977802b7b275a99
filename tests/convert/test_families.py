"""Checkpoints become what llama.cpp's converter makes of them, tensor by tensor and key by key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from halfbyte.converters.checkpoint import Checkpoint
from halfbyte.converters.families import family_of

from ..builders import CASES, Case, to_gguf
from .checkpoints import write_folder


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_and_keys_are_those_of_the_layout(case: Case, shards: int, tmp_path: Path) -> None:
    keys, tensors = to_gguf(case)
    with Checkpoint.open(write_folder(tmp_path, case.config, case.weights(), shards=shards)) as checkpoint:
        family, config = family_of(checkpoint)
        made = family.tensors(checkpoint.tensors, config)
        assert made.keys() == tensors.keys()
        for name, rows in made.items():
            whole = rows.floats(0, rows.n_rows).reshape(rows.shape)
            assert np.array_equal(whole, tensors[name].astype(np.float32)), name
            middle = rows.n_rows // 2
            assert np.array_equal(rows.read(middle, rows.n_rows), rows.read(0, rows.n_rows)[middle:]), name
        found = {f"{family.architecture}.{key}": value for key, value in family.keys(config).items()}
    expected = {key: value for key, value in keys.items() if not key.startswith("general.")}
    assert {key: found[key] for key in expected} == pytest.approx(expected)
