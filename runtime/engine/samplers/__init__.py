"""The steps of sampling, in the order of llama.cpp's defaults.

    logit bias -> penalties -> processors -> top-k -> top-p -> min-p -> temperature -> draw

The first three change logits of the whole vocabulary (edits.py); the next three narrow the candidates (narrowing.py);
temperature scales what is left, so the cut-offs do not depend on it. Logit bias comes first as in llama.cpp; the
caller's processors come after the penalties, so a grammar has the last word on what is possible.

A new sampler is one class with `apply` in one of the two files, and one line in `edits_for` or `narrowing_for`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .candidates import SUM_BLOCK, Candidates, Step, block_sums, largest
from .edits import LogitBias, Penalties, Processors
from .narrowing import MinP, TopK, TopP

if TYPE_CHECKING:
    from ..sampling import SamplingParams

__all__ = ["SUM_BLOCK", "Candidates", "Step", "block_sums", "edits_for", "largest", "narrowing_for"]


def edits_for(params: SamplingParams) -> Sequence[Step]:
    """The steps that change logits; only those that do something."""
    steps: list[Step] = []
    if params.logit_bias:
        steps.append(LogitBias(params.logit_bias))
    if params.penalty_last_n and (params.repeat_penalty, params.presence_penalty, params.frequency_penalty) != (
        1,
        0,
        0,
    ):
        steps.append(
            Penalties(params.repeat_penalty, params.presence_penalty, params.frequency_penalty, params.penalty_last_n)
        )
    if params.processors:
        steps.append(Processors(params.processors))
    return steps


def narrowing_for(params: SamplingParams) -> Sequence[Step]:
    """The steps that drop candidates; only those that do something."""
    steps: list[Step] = []
    if params.top_k > 0:
        steps.append(TopK(params.top_k))
    if params.top_p < 1:
        steps.append(TopP(params.top_p))
    if params.min_p > 0:
        steps.append(MinP(params.min_p))
    return steps
