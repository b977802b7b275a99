"""The older form of importance matrices, .dat: of each matrix a number of calls, and means of squares times it.

    int32 entries; of each: int32 length, name, int32 calls, int32 columns, float32 [columns]
    int32 chunks, int32 length, dataset        (the oldest files end before this)

There is one number of calls for all experts of a matrix.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import ModelFileError
from ...formats.gguf.source import Source

MOST_ENTRIES, MOST_NAME_BYTES = 1 << 20, 1 << 12  # more is no importance matrix
Entry = tuple[int, NDArray[np.float32]]  # calls, at least 1; float32 [experts * cols]


class _Reader:
    """Bounded reads of untrusted bytes."""

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


def parse(source: Source) -> tuple[dict[str, Entry], int, str]:
    """Entries by name, chunks, and the dataset. ModelFileError for anything else."""
    reader, entries = _Reader(source), dict[str, Entry]()
    for _ in range(reader.integer("number of entries", 1, MOST_ENTRIES)):
        name = reader.text("a name", 1)
        calls = reader.integer(f"{name}: calls", 0, 2**31 - 1)
        entries[name] = max(calls, 1), reader.floats(name)
    if reader.at == len(reader.data):
        return entries, 0, ""
    return entries, reader.integer("last chunk", 0, 2**31 - 1), reader.text("the dataset's name", 0)


def encode(entries: dict[str, Entry], chunks: int, dataset: str) -> bytes:
    """The bytes of a file, as llama-imatrix writes them."""
    parts = [struct.pack("<i", len(entries))]
    for name, (calls, values) in sorted(entries.items()):
        parts += [_text(name), struct.pack("<ii", calls, values.size), values.astype("<f4").tobytes()]
    return b"".join([*parts, struct.pack("<i", chunks), _text(dataset)])


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<i", len(data)) + data
