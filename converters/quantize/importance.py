"""Importance matrices (ggml's imatrix): the mean square of what each column of a matrix is multiplied with.

Two forms are read: GGUF files whose general.type is "imatrix", and the older .dat files of llama-imatrix. A matrix of
experts has one row of columns for each of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..imatrix.sums import Sums


@dataclass(frozen=True)
class Importance:
    """columns: tensor name -> float32 [experts, cols]; the rest says where they came from, as files record it."""

    columns: Mapping[str, NDArray[np.float32]]
    file: str = ""
    dataset: str = ""
    chunks: int = 0


def read_importance(path: str | os.PathLike[str]) -> Importance:
    """Read either form. ModelFileError says what is wrong with a file that is neither, damaged, or not there."""
    sums = Sums.read(path)
    return Importance(sums.means(), Path(path).name, sums.datasets[0] if sums.datasets else "", sums.chunks)
