"""The few words of Protocol Buffers that a SentencePiece model is written in, read within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..checkpoint import CheckpointError

Field = tuple[int, int | bytes]  # number, value: an integer for varints, bytes for all others
_FIXED = {1: 8, 5: 4}  # wire type -> bytes
_MAX_VARINT = 10  # bytes


class Message:
    """A serialized message of a file, which is there for errors."""

    def __init__(self, data: bytes, path: Path) -> None:
        self._data, self._path = data, path

    def __iter__(self) -> Iterator[Field]:
        """Fields in the order of the file. Raises CheckpointError."""
        at = 0
        while at < len(self._data):
            tag, at = self._varint(at)
            if tag & 7 == 0:
                value, at = self._varint(at)
                yield tag >> 3, value
                continue
            size, at = self._varint(at) if tag & 7 == 2 else (_FIXED.get(tag & 7, -1), at)
            if not 0 <= size <= len(self._data) - at:
                raise self._broken(f"a field of {size:,} bytes in the {len(self._data) - at:,} that are left")
            yield tag >> 3, self._data[at : at + size]
            at += size

    def inner(self, value: int | bytes) -> Message:
        """A field that is a message itself."""
        if isinstance(value, int):
            raise self._broken("a number where a message is due")
        return Message(value, self._path)

    def last(self) -> dict[int, int | bytes]:
        """The fields that count where none is repeated: the last of each number."""
        return dict(self)

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for i, byte in enumerate(self._data[at : at + _MAX_VARINT]):
            value |= (byte & 127) << 7 * i
            if byte < 128:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at + i + 1
        raise self._broken("a number that does not end")

    def _broken(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"no valid SentencePiece model: {what}", path=self._path,
            hint="The download is incomplete, or the file is of another kind: download it again",
        )  # fmt: skip
