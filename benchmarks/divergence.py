"""How far one program's predictions are from another's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from halfbyte.tools.compare import kl_divergence, log_softmax
from halfbyte.tools.perplexity import ROWS
from numpy.typing import NDArray


@dataclass(frozen=True)
class Divergence:
    """Of predictions from those of a reference, over all positions of a text.

    mean_kl    mean Kullback-Leibler divergence D(reference || predictions), nats per token
    kl_99      its 99th percentile
    agreement  share of positions at which both find the same token the likeliest
    """

    n_tokens: int
    mean_kl: float
    kl_99: float
    agreement: float


def divergence(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> Divergence:
    """Compare logits, both float32 [n, vocabulary], in float64."""
    if reference.shape != logits.shape:
        raise ValueError(f"logits of shape {reference.shape} and {logits.shape} cannot be compared")
    kl = np.empty(len(reference), np.float64)
    for start in range(0, len(reference), ROWS):
        part = slice(start, start + ROWS)
        kl[part] = kl_divergence(log_softmax(reference[part]), log_softmax(logits[part]))
    same = np.mean(reference.argmax(axis=1) == logits.argmax(axis=1))
    return Divergence(len(kl), float(kl.mean()), float(np.quantile(kl, 0.99)), float(same))
