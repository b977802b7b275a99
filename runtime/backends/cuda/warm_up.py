"""Steps that launch the kernels of a plan when a model is loaded: one is compiled when it is launched first.

Which kernels a product takes depends on the number of its rows; see lower_linear.py.
"""

from __future__ import annotations

import numpy as np

from ...step import Step

PROMPTS = (1, 2, 4, 8, 16)  # tokens: kernels for few rows take so many at once; then those for many, and the largest
LENGTH = 8  # tokens of a sequence: positions that every model has


def warm_up_steps(max_tokens: int) -> list[Step]:
    """A generated token, and prompts of several lengths. They write to the first page, before anyone reads it."""
    lengths = sorted({*(n for n in PROMPTS if n <= max_tokens), max_tokens})
    return [_step(1, is_prompt=False), *(_step(n, is_prompt=True) for n in lengths)]


def _step(n: int, *, is_prompt: bool) -> Step:
    numbers = np.arange(n, dtype=np.int32)
    sequence, positions = np.divmod(numbers, np.int32(LENGTH))
    pages = np.zeros((int(sequence[-1]) + 1, 1), np.int32)
    return Step(np.zeros(n, np.int32), positions, sequence, pages, numbers[-1:], is_prompt)
