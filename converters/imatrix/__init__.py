"""Importance matrices: what each column of a matrix is multiplied with, measured on a text.

    collect.py   runs a model over the text, and adds up the squares of what its matrices read
    sums.py      the sums: merged, written and read again
    dat.py       the bytes of the older form of their files
"""

from __future__ import annotations

from .collect import collect
from .sums import Sums, is_dat

__all__ = ["Sums", "collect", "is_dat"]
