"""Importance matrices: what each column of a matrix is multiplied with, measured on a text.

    collect.py   runs a model over the text, and adds up the squares of what its matrices read
    sums.py      the sums: merged, written and read again
"""

from __future__ import annotations

from .collect import collect
from .sums import Sums

__all__ = ["Sums", "collect"]
