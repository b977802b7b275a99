"""Many short texts in little memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np


class Texts:
    """As one text and where each ends: an object for each takes several times its characters."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._text = "".join(texts)
        self._ends = np.fromiter(accumulate(map(len, texts)), np.int64, len(texts))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> str:
        return self._text[self._begin(i) : int(self._ends[i])]

    def find(self, text: str) -> int | None:
        """The place of the first that is `text`, which is not empty."""
        at = self._text.find(text)
        while at >= 0:
            i = int(np.searchsorted(self._ends, at, "right"))
            if self[i] == text and self._begin(i) == at:
                return i
            at = self._text.find(text, at + 1)
        return None

    def _begin(self, i: int) -> int:
        return int(self._ends[i - 1]) if i else 0
