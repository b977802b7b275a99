"""A checkpoint as the GGUF model it will be: metadata and tensors, like those of a file that is not there yet.

What takes a `GGUFFile` takes a `SourceModel`: the planner and writer of `quantize`, the families of `runtime/models`,
whose graph is the check that nothing is missing, and the reference backend, which runs the source weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats.gguf import GGMLType, GGUFFile, GGUFWriter, ValueType
from .rows import Rows

SMALL_BYTES = 1 << 16  # tensors whose numbers decide what is computed, such as factors of rotation, are smaller


@dataclass(frozen=True)
class SourceTensor:
    """One tensor, with the attributes of a `GGUFTensor`. Matrices keep the stored type, vectors are float32."""

    name: str
    rows: Rows

    @property
    def type(self) -> GGMLType:
        return self.rows.type

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    @property
    def ne(self) -> tuple[int, ...]:
        """The shape in file order."""
        return self.rows.shape[::-1]

    @property
    def n_elements(self) -> int:
        return self.rows.n_rows * self.rows.shape[-1]

    @property
    def n_bytes(self) -> int:
        return self.rows.n_rows * self.row_bytes

    @property
    def row_bytes(self) -> int:
        return self.type.row_bytes(self.ne[0])

    @property
    def path(self) -> str:
        """Where it comes from."""
        return self.rows.origin

    @property
    def data(self) -> NDArray[np.uint8]:
        """All of it at once, uint8[*shape[:-1], row_bytes]."""
        return self.rows.read(0, self.rows.n_rows).reshape(*self.shape[:-1], self.row_bytes)

    def read(self, first: int, last: int) -> NDArray[np.uint8]:
        """Rows as bytes, uint8[last - first, row_bytes]."""
        return self.rows.read(first, last)

    def forget(self, first: int = 0, last: int | None = None) -> None:
        """Give back the memory that reading these rows took."""
        self.rows.forget(first, self.rows.n_rows if last is None else last)


@dataclass(frozen=True)
class HollowTensor(SourceTensor):
    """A tensor of the right shape without its numbers: what checks a graph does not read them."""

    @property
    def data(self) -> NDArray[np.uint8]:
        if self.n_bytes <= SMALL_BYTES:
            return super().data
        return np.broadcast_to(np.uint8(0), (*self.shape[:-1], self.row_bytes))


class SourceModel:
    """Metadata and tensors of a model that is to be written. `path` is the checkpoint, `paths` all files read."""

    def __init__(
        self, path: Path, paths: list[Path], keys: Mapping[str, Any], tensors: Mapping[str, SourceTensor]
    ) -> None:
        self.path, self.paths = path, tuple(paths)
        self.metadata = _metadata(keys, path)
        self.tensors = MappingProxyType(dict(tensors))

    def hollow(self) -> SourceModel:
        """The same model, in which no large tensor is read."""
        model = object.__new__(SourceModel)
        model.path, model.paths, model.metadata = self.path, self.paths, self.metadata
        model.tensors = MappingProxyType({name: HollowTensor(name, t.rows) for name, t in self.tensors.items()})
        return model


def _metadata(keys: Mapping[str, Any], path: Path) -> Any:
    """The keys as a file would have them. A pair (value, type) says how a value is stored."""
    writer = GGUFWriter(path.with_name(f"{path.name}.gguf"))
    for key, value in keys.items():
        if isinstance(value, tuple):
            writer.add(key, *value)
        else:
            writer.add(key, value)
    return GGUFFile.from_buffer(writer.plan()[0].header, name=str(path)).metadata


FLOAT32, UINT32, BOOL = ValueType.FLOAT32, ValueType.UINT32, ValueType.BOOL
