"""Sums of squares of the inputs of matrices: by column, and of matrices of experts by expert."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import InvalidRequest, ModelFileError
from ...formats.gguf import GGMLType, GGUFFile, GGUFTensor, GGUFWriter, Metadata, ValueType
from ...formats.quants import decode

SUMS, COUNTS = ".in_sum2", ".counts"
ORIGIN = "halfbyte.imatrix.origin"  # what a run was made of, so that only that run is gone on with


@dataclass
class Sums:
    """squares: tensor name -> float64 [experts, cols]; counts -> float64 [experts], rows that were added up.

    origin says which model, text and window they are of; of merged sums it is empty.
    """

    datasets: list[str] = field(default_factory=list)
    chunks: int = 0
    chunk_size: int = 0
    origin: str = ""
    squares: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    counts: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, name: str, x: NDArray[np.float32], expert: int = 0, experts: int = 1) -> None:
        """Rows that a matrix was multiplied with, float32 [rows, cols]."""
        if name not in self.squares:
            self.squares[name] = np.zeros((experts, x.shape[1]))
            self.counts[name] = np.zeros(experts)
        # As a product: some hundred rows lose nothing in float32, and adding up columns would be slower.
        self.squares[name][expert] += np.ones(len(x), np.float32) @ (x * x)
        self.counts[name][expert] += len(x)

    def merge(self, other: Sums) -> None:
        """Add what another has. InvalidRequest where it is of another model."""
        for name, squares in other.squares.items():
            own = self.squares.setdefault(name, np.zeros_like(squares))
            if own.shape != squares.shape:
                raise InvalidRequest(f"{name!r} is {own.shape} in one importance matrix and {squares.shape} in another")
            self.squares[name] = own + squares
            self.counts[name] = self.counts.get(name, np.zeros(len(squares))) + other.counts[name]
        self.datasets += [dataset for dataset in other.datasets if dataset not in self.datasets]
        self.chunks += other.chunks
        self.chunk_size = self.chunk_size or other.chunk_size

    def means(self) -> dict[str, NDArray[np.float32]]:
        """float32 [experts, cols]. Experts that were never asked have ones: all their columns are alike."""
        found = {}
        for name, squares in self.squares.items():
            counts = self.counts[name][:, None]
            found[name] = np.where(counts > 0, squares / np.where(counts > 0, counts, 1), 1).astype(np.float32)
        return found

    def write(self, path: str | os.PathLike[str]) -> None:
        """As GGUF, in llama.cpp's form. The file is complete when it appears under its name."""
        writer = GGUFWriter(path)
        writer.add("general.type", "imatrix")
        writer.add("imatrix.datasets", self.datasets, ValueType.STRING)
        writer.add("imatrix.chunk_count", self.chunks)
        writer.add("imatrix.chunk_size", self.chunk_size)
        if self.origin:
            writer.add(ORIGIN, self.origin)
        arrays = dict(self._arrays())
        for name, array in arrays.items():
            writer.add_tensor(name, array.shape, GGMLType.F32)
        with writer.open():
            for name, array in arrays.items():
                writer.write_tensor(name, array)

    def _arrays(self) -> Mapping[str, NDArray[np.float32]]:
        found: dict[str, NDArray[np.float32]] = {}
        for name in sorted(self.squares):
            found[name + SUMS] = self.squares[name].astype(np.float32)
            found[name + COUNTS] = self.counts[name].astype(np.float32)[:, None]
        return found

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Sums:
        """What `write` wrote, or llama-imatrix. ModelFileError for anything else."""
        with GGUFFile.open(Path(path)) as file:
            metadata = file.metadata
            if metadata.optional("general.type", str, "") != "imatrix":
                raise ModelFileError("not an importance matrix, but a model", path=path, field="general.type")
            found = cls(
                [str(name) for name in metadata.optional("imatrix.datasets", list, [])],
                _count(metadata, "imatrix.chunk_count"),
                _count(metadata, "imatrix.chunk_size"),
                metadata.optional(ORIGIN, str, ""),
            )
            for name in (n.removesuffix(SUMS) for n in file.tensors if n.endswith(SUMS)):
                sums, counts = file.tensors[name + SUMS], file.tensors.get(name + COUNTS)
                if counts is None or not _belong_together(sums, counts):
                    raise ModelFileError("sums without a count for each row", path=path, field=name + SUMS)
                found.squares[name] = _numbers(sums).reshape(-1, sums.ne[0])
                found.counts[name] = _numbers(counts).reshape(-1)
        return found


def _count(metadata: Metadata, key: str) -> int:
    value = metadata.optional(key, int, 0)
    if value < 0:
        raise ModelFileError("a count below zero", path=metadata.path, field=key, got=value)
    return value


def _belong_together(sums: GGUFTensor, counts: GGUFTensor) -> bool:
    is_float = sums.type is GGMLType.F32 and counts.type is GGMLType.F32
    return is_float and sums.n_elements > 0 and counts.n_elements * sums.ne[0] == sums.n_elements


def _numbers(tensor: GGUFTensor) -> NDArray[np.float64]:
    found = decode(tensor.data, tensor.type).astype(np.float64)
    if not np.isfinite(found).all() or (found < 0).any():
        problem = "an importance matrix holds NaN, infinity or a negative number"
        raise ModelFileError(problem, path=tensor.path, field=tensor.name)
    return found
