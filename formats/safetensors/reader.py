"""Open safetensors files: validated, mapped, nothing copied."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..gguf.source import Source
from ..stored import StoredFile, StoredTensor
from .header import Entry, parse_header


class SafetensorsFile(StoredFile):
    """A validated safetensors file. Use `SafetensorsFile.open`, as a context manager or with `close()`.

    `tensors` is a mapping in the order of the file, `metadata` free text of whoever wrote it.
    """

    def __init__(self, source: Source) -> None:
        header = parse_header(source)
        super().__init__(source)
        self.metadata: Mapping[str, str] = MappingProxyType(dict(header.metadata))
        self.tensors: Mapping[str, StoredTensor] = MappingProxyType(
            {entry.name: _tensor(entry, source) for entry in header.entries}
        )


def _tensor(entry: Entry, source: Source) -> StoredTensor:
    return StoredTensor(entry.name, entry.dtype, entry.shape, entry.start, entry.stop - entry.start, source)
