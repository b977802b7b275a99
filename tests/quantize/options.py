"""Quantizations with options, as both programs can do them. fixtures/quantize_options.json has what llama.cpp makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..recipe_models import write


@dataclass(frozen=True)
class Case:
    """A model of recipe_models, a recipe, and options of `quantize`; with the tensors of each file of a split model."""

    model: str
    recipe: str
    options: dict[str, Any] = field(default_factory=dict)
    split_counts: Sequence[int] | None = None
    weighted: bool = False

    def source(self, folder: Path) -> Path:
        """Writes the model, and returns the file to be opened."""
        write(folder / "in.gguf", self.model, backwards=self.split_counts is not None, split_counts=self.split_counts)
        return min(folder.glob("in*.gguf"))


_FIRST_ONE_EMPTY = (0, 1, 60, 1, 60, 1)
CASES = {
    "pure": Case("alone", "Q4_K_M", {"pure": True}),
    "pure and tied": Case("shared", "Q5_K_S", {"pure": True}),
    "types of output and embedding": Case("alone", "Q5_0", {"output_type": "F16", "embedding_type": "Q3_K"}),
    "output that is the embedding": Case("shared", "Q5_0", {"output_type": "Q8_0"}),
    "embedding that is the output": Case("shared", "Q5_0", {"embedding_type": "Q4_1", "output_type": "Q2_K"}),
    "types beside floats": Case("alone", "F16", {"output_type": "Q8_0", "embedding_type": "Q6_K"}),
    "output kept": Case("alone", "Q2_K", {"keep_output": True}),
    "overrides": Case(
        "alone", "Q4_K_M", {"overrides": [(r"blk\.[0-3]\.ffn_down", "Q8_0"), ("ffn_down", "Q3_K"), ("norm", "Q8_0")]}
    ),
    "overrides and pure": Case("sixteen", "Q4_K_M", {"overrides": [("exps", "Q2_K"), ("attn_v", "F16")], "pure": True}),
    "overrides that do not fit": Case("odd", "Q4_0", {"overrides": [("attn_q", "Q6_K"), ("attn_k", "IQ4_XS")]}),
    "the same files": Case("alone", "Q4_K_M", {"keep_split": True}, _FIRST_ONE_EMPTY),
    "the same files, weighted": Case("alone", "Q4_0", {"keep_split": True}, (1, 100, 22), weighted=True),
    "one file of several": Case("alone", "Q4_K_M", {}, _FIRST_ONE_EMPTY),
    "without layers": Case("alone", "Q4_K_M", {"prune_layers": [0, 3, 16]}),
    "without layers, weighted": Case("eight", "IQ3_M", {"prune_layers": [5, 6]}, weighted=True),
}  # fmt: skip
