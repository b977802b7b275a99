"""One step of work: tokens of any number of sequences, and where their keys and values live."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PAGE = 32  # tokens in one page of the key/value cache: one tile of the attention kernel


@dataclass(frozen=True)
class Step:
    """A batch of T tokens of S sequences. Tokens of one sequence are consecutive and in position order.

    tokens      int32 [T]     token ids
    positions   int32 [T]     position of each token in its sequence, from 0
    sequence    int32 [T]     row of `pages` that each token belongs to
    pages       int32 [S, P]  page table: ids of the pages of each sequence in position order, -1 where there is none
    outputs     int32 [R]     token rows (0..T-1, ascending) whose logits are wanted; R may be 0
    is_prompt   bool          pieces of prompts, not tokens just generated: a backend may use other kernels for them, so
                              this decides how sums are rounded, and the number of tokens only does on GPUs that take
                              another way for long prompts (docs/cuda.md)
    """

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    sequence: NDArray[np.int32]
    pages: NDArray[np.int32]
    outputs: NDArray[np.int32]
    is_prompt: bool = True

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)
