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
from ...formats.gguf import GGMLType, GGUFFile, GGUFTensor
from ...formats.quants import decode

SUMS, COUNTS = ".in_sum2", ".counts"
MOST_ENTRIES, MOST_NAME_BYTES = 1 << 20, 1 << 12  # of a .dat file: more is no importance matrix


@dataclass(frozen=True)
class Importance:
    """columns: tensor name -> float32 [experts, cols]; the rest says where they came from, as files record it."""

    columns: Mapping[str, NDArray[np.float32]]
    file: str = ""
    dataset: str = ""
    chunks: int = 0


def read_importance(path: str | os.PathLike[str]) -> Importance:
    """Read either form. ModelFileError says what is wrong with a file that is neither, or damaged."""
    with open(path, "rb") as file:
        magic = file.read(4)
    found = _of_gguf(path) if magic in (b"GGUF", b"FUGG") else _of_dat(path)
    for name, columns in found.columns.items():
        if not np.isfinite(columns).all() or (columns < 0).any():
            raise ModelFileError("the importance holds NaN, infinity or a negative number", path=path, field=name)
    return found


def _of_gguf(path: str | os.PathLike[str]) -> Importance:
    with GGUFFile.open(path) as file:
        if file.metadata.optional("general.type", str, "") != "imatrix":
            raise ModelFileError("not an importance matrix, but a model", path=path, field="general.type")
        columns = {}
        for name in (n.removesuffix(SUMS) for n in file.tensors if n.endswith(SUMS)):
            sums, counts = file.tensors[name + SUMS], file.tensors.get(name + COUNTS)
            if counts is None or not _belong_together(sums, counts):
                raise ModelFileError("sums without a count for each row", path=path, field=name + SUMS)
            rows = decode(sums.data, sums.type).reshape(-1, sums.ne[0])
            columns[name] = _means(rows, decode(counts.data, counts.type))
        datasets = file.metadata.optional("imatrix.datasets", list, [])
        return Importance(
            columns, Path(path).name, str(datasets[0]) if len(datasets) else "",
            file.metadata.optional("imatrix.chunk_count", int, 0),
        )  # fmt: skip


def _belong_together(sums: GGUFTensor, counts: GGUFTensor) -> bool:
    is_float = sums.type is GGMLType.F32 and counts.type is GGMLType.F32
    return is_float and counts.n_elements * sums.ne[0] == sums.n_elements


def _means(sums: NDArray[np.float32], counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Experts that were never asked have ones: all their columns are alike."""
    counts = counts.reshape(-1, 1)
    means: NDArray[np.float32] = np.where(counts > 0, sums / np.where(counts > 0, counts, 1), np.float32(1))
    return means.astype(np.float32)


class _Dat:
    """A .dat file: bounded reads of untrusted bytes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.data, self.at = path, Path(path).read_bytes(), 0

    def integer(self, what: str, least: int, most: int) -> int:
        (value,) = struct.unpack("<i", self.take(4, what))
        if not least <= value <= most:
            raise ModelFileError("not an importance matrix: impossible number", path=self.path, offset=self.at - 4,
                                 field=what, got=value, allowed=f"{least} to {most}")  # fmt: skip
        return int(value)

    def take(self, n: int, what: str) -> bytes:
        if n > len(self.data) - self.at:
            raise ModelFileError("the file ends here", path=self.path, offset=self.at, field=what,
                                 hint="It is no importance matrix, or only a part of one")  # fmt: skip
        self.at += n
        return self.data[self.at - n : self.at]

    @property
    def ended(self) -> bool:
        return self.at == len(self.data)


def _of_dat(path: str | os.PathLike[str]) -> Importance:
    dat, columns = _Dat(path), {}
    for _ in range(dat.integer("number of entries", 1, MOST_ENTRIES)):
        name = dat.take(dat.integer("length of a name", 1, MOST_NAME_BYTES), "name").decode("utf-8", "replace")
        calls = dat.integer(f"{name}: calls", 0, 2**31 - 1)
        count = dat.integer(f"{name}: columns", 1, len(dat.data) // 4)
        values = np.frombuffer(dat.take(4 * count, name), "<f4").astype(np.float32)
        columns[name] = (values / np.float32(calls) if calls else values).reshape(1, -1)
    chunks, dataset = 0, ""
    if not dat.ended:  # the oldest files end here
        chunks = dat.integer("last chunk", 0, 2**31 - 1)
        raw = dat.take(dat.integer("length of the dataset's name", 0, MOST_NAME_BYTES), "dataset")
        dataset = raw.decode("utf-8", "replace")
    return Importance(columns, Path(path).name, dataset, chunks)
