"""A model that is read in parts computes what it does in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from halfbyte.formats.gguf import GGMLType, GGUFFile, hollow
from halfbyte.formats.gguf.tensors import GGUFTensor
from halfbyte.formats.quants import codec_for
from halfbyte.runtime.backends import streamed
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.backends.streamed import Streamed, StreamedExecutor
from halfbyte.runtime.models import build_model

from ..builders import CASES, ENCODERS, N_TOKENS, Case, write_gguf
from ..models.running import N_PAGES, distance, prefill


@pytest.mark.parametrize("case", (CASES | ENCODERS).values(), ids=list(CASES | ENCODERS))
def test_parts_are_the_whole(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "PART_WEIGHTS", 150)  # 2 or 3 rows
    with GGUFFile.open(write_gguf(case, tmp_path / "model.gguf")) as file:
        whole = ReferenceBackend().compile(build_model(file).graph, n_pages=N_PAGES, max_tokens=N_TOKENS)
        wanted = prefill(whole, case.tokens())
        graph = build_model(hollow(file)).graph
        parts = StreamedExecutor(graph, file.tensors, n_pages=N_PAGES, max_tokens=N_TOKENS)
        assert distance(prefill(parts, case.tokens()), wanted) < 1e-5  # matrices of other heights are summed otherwise


def test_no_more_than_a_part_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "PART_WEIGHTS", 3 * 32)
    rng = np.random.default_rng(7)
    weights = rng.normal(size=(2 * 11, 32)).astype(np.float32)
    tensor = Noting(weights)
    matrix, x = Streamed(tensor, (11, 32), 11), rng.normal(size=(5, 32)).astype(np.float32)
    np.testing.assert_allclose(x @ matrix.T, x @ codec_for(GGMLType.Q8_0).decode(tensor.blocks)[11:].T, rtol=1e-5)
    row = GGMLType.Q8_0.row_bytes(32)
    assert tensor.read == [(11, 14), (14, 17), (17, 20), (20, 22)]
    assert tensor.forgotten == [(first * row, last * row) for first, last in tensor.read]


class Noting(GGUFTensor):
    """A matrix in Q8_0 that notes what is asked of it."""

    def __init__(self, weights: np.ndarray) -> None:
        blocks = codec_for(GGMLType.Q8_0).encode(weights)
        fields = {"name": "w", "type": GGMLType.Q8_0, "ne": weights.shape[::-1]}
        for name, value in {**fields, "blocks": blocks, "read": [], "forgotten": []}.items():
            object.__setattr__(self, name, value)

    @property
    def rows(self) -> Noting:
        return self

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.read.append((rows.start, rows.stop))
        return self.blocks[rows]

    def forget(self, start: int = 0, stop: int | None = None) -> None:
        self.forgotten.append((start, stop))
