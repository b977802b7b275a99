"""Rows that are whole blocks of 64 or 128 weights, but no multiple of the 256 that kernels take at once.

Whole models, so that embeddings, products of few and of many tokens, gated ones and those of experts have such rows.
Kernels alone: tests/oracle/test_kernels_linear.py and test_kernels_guard.py, with `columns`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.gguf import GGMLType
from halfbyte.runtime.backends.cpu import CPUBackend
from halfbyte.runtime.backends.reference import ReferenceBackend

from ..builders import CASES, N_TOKENS, Case, open_case
from ..models.running import N_PAGES, prefill, run_in_chunks
from ..switches import needs_kernels
from ..tolerances import INT8_LOGITS

TYPES = [GGMLType.NVFP4, GGMLType.Q2_0, GGMLType.Q1_0]


def with_short_rows(name: str, block: int) -> Case:
    """The family's case with rows of three and five blocks."""
    shape: Mapping[str, Any] = {
        "hidden_size": 3 * block, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": block,
        "intermediate_size": 5 * block, "num_hidden_layers": 1,
    }  # fmt: skip
    return Case(f"{name}_short_rows", {**CASES[name].config, **shape})


@needs_kernels
@pytest.mark.parametrize("name", ["llama", "mixtral"])
@pytest.mark.parametrize("ggml_type", TYPES, ids=lambda t: t.name)
def test_a_model_runs(ggml_type: GGMLType, name: str, tmp_path: Path) -> None:
    case = with_short_rows(name, ggml_type.block_size)
    graph = open_case(case, tmp_path, matrix_type=ggml_type).graph
    matrices = [w for node in graph.nodes for w in node.weights.values() if len(w.shape) > 1]
    assert {w.type for w in matrices} == {ggml_type}
    assert all(w.cols % 256 and w.cols % ggml_type.block_size == 0 for w in matrices)
    expected = prefill(ReferenceBackend().compile(graph, n_pages=N_PAGES, max_tokens=N_TOKENS), case.tokens())
    executor = CPUBackend().compile(graph, n_pages=N_PAGES, max_tokens=N_TOKENS, threads=2)
    share = 0.8 if name == "mixtral" else 1.0  # near a tie a router may choose another expert after rounding
    for sizes in ([N_TOKENS], [1] * N_TOKENS):
        error = np.abs(run_in_chunks(executor, case.tokens(), sizes) - expected).max(axis=1) / np.abs(expected).max()
        assert np.quantile(error, share) < INT8_LOGITS
    executor.close()
