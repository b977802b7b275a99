"""Open safetensors files: validated, mapped, nothing copied."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType

from ..gguf.source import Source, open_source
from ..stored import StoredTensor
from .header import Entry, parse_header


class SafetensorsFile:
    """A validated safetensors file. Use `SafetensorsFile.open`, as a context manager or with `close()`.

    `tensors` is a mapping in the order of the file, `metadata` free text of whoever wrote it.
    """

    def __init__(self, source: Source) -> None:
        header = parse_header(source)
        self._source = source
        self.path, self.size = Path(source.path), source.size
        self.metadata: Mapping[str, str] = MappingProxyType(dict(header.metadata))
        self.tensors: Mapping[str, StoredTensor] = MappingProxyType(
            {entry.name: _tensor(entry, source) for entry in header.entries}
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SafetensorsFile:
        """Open and validate a file. Raises FileAccessError, SafetensorsError subclasses and ResourceError."""
        source = open_source(path)
        try:
            return cls(source)
        except BaseException:
            source.close()
            raise

    def close(self) -> None:
        """Release the file. Arrays taken from `tensors` stay valid and keep it mapped."""
        self._source.close()

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SafetensorsFile({str(self.path)!r}, {len(self.tensors)} tensors)"


def _tensor(entry: Entry, source: Source) -> StoredTensor:
    return StoredTensor(entry.name, entry.dtype, entry.shape, entry.start, entry.stop - entry.start, source)
