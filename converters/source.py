"""A checkpoint as the GGUF model it will be: metadata and tensors, like those of a file that is not there yet.

What takes a `GGUFFile` takes a `SourceModel`: the planner and writer of `quantize`, the families of `runtime/models`,
whose graph is the check that nothing is missing, and the reference backend, which runs the source weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats.gguf import GGUFFile, GGUFTensor, GGUFWriter
from ..formats.gguf.source import buffer_source
from ..formats.gguf.tensors import RowReader
from .rows import Rows


@dataclass(frozen=True, slots=True)
class SourceTensor(GGUFTensor):
    """One tensor of a checkpoint."""

    made_by: Rows

    @property
    def data(self) -> NDArray[np.uint8]:
        """All of it at once, see GGUFTensor."""
        return self.made_by.read(0, self.made_by.n_rows).reshape(*self.shape[:-1], self.row_bytes)

    @property
    def rows(self) -> RowReader:
        """See GGUFTensor."""
        return _Lazily(self.made_by)

    def forget(self, start: int = 0, stop: int | None = None) -> None:
        """See GGUFTensor: in bytes of `data`."""
        last = self.n_bytes if stop is None else stop
        if first_to_last := range(start // self.row_bytes, last // self.row_bytes):
            self.made_by.forget(first_to_last.start, first_to_last.stop)


@dataclass(frozen=True)
class _Lazily:
    """Rows that are read when they are sliced."""

    made_by: Rows

    def __len__(self) -> int:
        return self.made_by.n_rows

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        first, last, _ = rows.indices(len(self))
        return self.made_by.read(first, last)


def tensor(name: str, made_by: Rows) -> SourceTensor:
    """A tensor under its GGUF name. Its `path` is where it comes from."""
    ne, origin = made_by.shape[::-1], buffer_source(b"", made_by.origin)
    n_bytes = made_by.type.row_bytes(ne[0]) * made_by.n_rows
    return SourceTensor(name, made_by.type, ne, 0, n_bytes, "<", origin, made_by)


class SourceModel(GGUFFile):
    """Metadata and tensors of a model that is to be written. `path` is the checkpoint, `paths` are all files read."""

    def __init__(
        self,
        path: Path,
        paths: tuple[Path, ...],
        keys: Mapping[str, Any],
        tensors: Mapping[str, SourceTensor],
        close: Callable[[], None],
    ) -> None:
        self.path, self.paths, self.byte_order = path, paths, "<"
        self.metadata = _metadata(keys, path)
        self.tensors = MappingProxyType(dict(tensors))
        self.size = sum(tensor.n_bytes for tensor in tensors.values())
        self._keys, self._close = dict(keys), close

    def close(self) -> None:
        """Release the checkpoint's files."""
        self._close()

    def with_tensors(self, tensors: Mapping[str, SourceTensor]) -> SourceModel:
        """The same model with other tensors. Close one of both."""
        return SourceModel(self.path, self.paths, self._keys, tensors, self._close)


def _metadata(keys: Mapping[str, Any], path: Path) -> Any:
    """The keys as a file would have them. A pair (value, type) says how a value is stored."""
    writer = GGUFWriter(path / "model.gguf")  # which is not written
    for key, value in keys.items():
        if isinstance(value, tuple):
            writer.add(key, *value)
        else:
            writer.add(key, value)
    return GGUFFile.from_buffer(writer.plan()[0].header, name=str(path)).metadata
