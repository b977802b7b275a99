"""Importance matrices (ggml's imatrix): the mean square of what each column of a matrix is multiplied with.

Two forms are read: GGUF files whose general.type is "imatrix", and the older .dat files of llama-imatrix. A matrix of
experts has one row of columns for each of them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import ModelFileError
from ...formats.gguf.source import Source, open_source
from ..imatrix.sums import Sums

MOST_ENTRIES, MOST_NAME_BYTES = 1 << 20, 1 << 12  # of a .dat file: more is no importance matrix


@dataclass(frozen=True)
class Importance:
    """columns: tensor name -> float32 [experts, cols]; the rest says where they came from, as files record it."""

    columns: Mapping[str, NDArray[np.float32]]
    file: str = ""
    dataset: str = ""
    chunks: int = 0


def read_importance(path: str | os.PathLike[str]) -> Importance:
    """Read either form. ModelFileError says what is wrong with a file that is neither, damaged, or not there."""
    source = open_source(path)
    try:
        if bytes(source.view[:4]) != b"GGUF":
            return _of_dat(source)
    finally:
        source.close()
    sums = Sums.read(path)
    return Importance(sums.means(), Path(path).name, sums.datasets[0] if sums.datasets else "", sums.chunks)


class _Dat:
    """A .dat file: bounded reads of untrusted bytes."""

    def __init__(self, source: Source) -> None:
        self.path, self.data, self.at = source.path, source.view, 0

    def integer(self, what: str, least: int, most: int) -> int:
        (value,) = struct.unpack("<i", self.take(4, what))
        if not least <= value <= most:
            raise ModelFileError("not an importance matrix: impossible number", path=self.path, offset=self.at - 4,
                                 field=what, got=value, allowed=f"{least} to {most}")  # fmt: skip
        return int(value)

    def text(self, what: str, least: int) -> str:
        return self.take(self.integer(f"length of {what}", least, MOST_NAME_BYTES), what).decode("utf-8", "replace")

    def floats(self, name: str) -> NDArray[np.float32]:
        count = self.integer(f"{name}: columns", 1, len(self.data) // 4)
        values = np.frombuffer(self.take(4 * count, name), "<f4").astype(np.float32)
        if not np.isfinite(values).all() or (values < 0).any():
            raise ModelFileError("an importance matrix holds NaN, infinity or a negative number", path=self.path,
                                 offset=self.at - 4 * count, field=name)  # fmt: skip
        return values

    def take(self, n: int, what: str) -> bytes:
        if n > len(self.data) - self.at:
            raise ModelFileError("the file ends here", path=self.path, offset=self.at, field=what,
                                 hint="It is no importance matrix, or only a part of one")  # fmt: skip
        self.at += n
        return bytes(self.data[self.at - n : self.at])


def _of_dat(source: Source) -> Importance:
    dat, columns = _Dat(source), {}
    for _ in range(dat.integer("number of entries", 1, MOST_ENTRIES)):
        name = dat.text("a name", 1)
        calls = dat.integer(f"{name}: calls", 0, 2**31 - 1)
        values = dat.floats(name)
        columns[name] = (values / np.float32(calls) if calls else values).reshape(1, -1)
    chunks, dataset = 0, ""
    if dat.at < len(dat.data):  # the oldest files end here
        chunks, dataset = dat.integer("last chunk", 0, 2**31 - 1), dat.text("the dataset's name", 0)
    return Importance(columns, Path(source.path).name, dataset, chunks)
