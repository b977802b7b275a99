"""Sums of squares of the inputs of matrices: by column, and of matrices of experts by expert."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import InvalidRequest, ModelFileError
from ...formats.gguf import GGMLType, GGUFFile, GGUFTensor, GGUFWriter, Metadata, ValueType
from ...formats.gguf.durable import write_durably
from ...formats.gguf.source import Source, open_source
from ...formats.quants import decode
from . import dat

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
        with np.errstate(over="ignore", invalid="ignore"):
            added = np.ones(len(x), np.float32) @ (x * x)
        if not np.isfinite(added).all():
            raise ModelFileError(f"{name!r} is multiplied with NaN or infinity: this model cannot be measured")
        self.squares[name][expert] += added
        self.counts[name][expert] += len(x)

    def merge(self, other: Sums) -> None:
        """Add what another has. InvalidRequest where it is of another model."""
        for name, squares in other.squares.items():
            own, counts = self.squares.get(name, np.zeros_like(squares)), self.counts.get(name, np.zeros(len(squares)))
            rows, fewer = max(len(own), len(squares)), min(len(own), len(squares))
            if own.size != squares.size or fewer not in (1, rows):  # one count may be for all experts
                raise InvalidRequest(f"{name!r} is {own.shape} in one importance matrix and {squares.shape} in another")
            self.squares[name] = own.reshape(rows, -1) + squares.reshape(rows, -1)
            self.counts[name] = np.zeros(rows) + counts + other.counts[name]
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

    def unused(self) -> dict[str, int]:
        """How many experts of a matrix were never asked, where there are such."""
        missing = {name: int((counts == 0).sum()) for name, counts in self.counts.items()}
        return {name: n for name, n in missing.items() if n}

    def write(self, path: str | os.PathLike[str], *, exact: bool = False) -> None:
        """In llama.cpp's form, GGUF; in its older one where the name ends with .dat.

        exact   sums in float64, which no other program reads, so that going on is as never having stopped. The file is
                complete when it appears under its name
        """
        if is_dat(path):
            self._write_dat(path)
            return
        writer = GGUFWriter(path)
        writer.add("general.type", "imatrix")
        writer.add("imatrix.datasets", self.datasets, ValueType.STRING)
        writer.add("imatrix.chunk_count", self.chunks)
        writer.add("imatrix.chunk_size", self.chunk_size)
        if self.origin:
            writer.add(ORIGIN, self.origin)
        arrays = dict(self._arrays(np.float64 if exact else np.float32))
        for name, array in arrays.items():
            writer.add_tensor(name, array.shape, GGMLType.F64 if exact else GGMLType.F32)
        with writer.open():
            for name, array in arrays.items():
                writer.write_tensor(name, array)

    def _arrays(self, dtype: type[np.floating[Any]]) -> Mapping[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        for name in sorted(self.squares):
            found[name + SUMS] = self.squares[name].astype(dtype)
            found[name + COUNTS] = self.counts[name].astype(dtype)[:, None]
        return found

    def _write_dat(self, path: str | os.PathLike[str]) -> None:
        entries = {}
        for name, means in self.means().items():
            if self.counts[name].any():
                calls = math.ceil(self.counts[name].max() / max(self.chunk_size, 1))
                entries[name] = calls, means.reshape(-1) * np.float32(calls)
        write_durably(path, dat.encode(entries, self.chunks, self.datasets[0] if self.datasets else ""))

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, rows_per_call: int = 1) -> Sums:
        """What `write` wrote, or llama-imatrix. ModelFileError for anything else.

        Files in the older form count calls, of an unknown number of rows each: `rows_per_call` matters to `merge`.
        """
        source = open_source(path)
        try:
            if bytes(source.view[:4]) != b"GGUF":
                return cls._of_dat(source, rows_per_call)
        finally:
            source.close()
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
                found.counts[name] = np.floor(_numbers(counts).reshape(-1) + 0.5)  # whole, as llama.cpp takes them
        return found

    @classmethod
    def _of_dat(cls, source: Source, rows_per_call: int) -> Sums:
        entries, chunks, dataset = dat.parse(source)
        found = cls([dataset] if dataset else [], chunks)
        for name, (calls, values) in entries.items():
            found.squares[name] = values.astype(np.float64).reshape(1, -1) * rows_per_call
            found.counts[name] = np.array([float(calls * rows_per_call)])
        return found


def is_dat(path: str | os.PathLike[str]) -> bool:
    """A file of this name is written in the older form."""
    return Path(path).suffix == ".dat"


def _count(metadata: Metadata, key: str) -> int:
    value = metadata.optional(key, int, 0)
    if value < 0:
        raise ModelFileError("a count below zero", path=metadata.path, field=key, got=value)
    return value


def _belong_together(sums: GGUFTensor, counts: GGUFTensor) -> bool:
    is_float = sums.type is counts.type and sums.type in (GGMLType.F32, GGMLType.F64)
    return is_float and sums.n_elements > 0 and counts.n_elements * sums.ne[0] == sums.n_elements


def _numbers(tensor: GGUFTensor) -> NDArray[np.float64]:
    is_exact = tensor.type is GGMLType.F64
    found = tensor.data.view("<f8") if is_exact else decode(tensor.data, tensor.type).astype(np.float64)
    if not np.isfinite(found).all() or (found < 0).any():
        problem = "an importance matrix holds NaN, infinity or a negative number"
        raise ModelFileError(problem, path=tensor.path, field=tensor.name)
    return found
