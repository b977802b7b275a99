"""A position in an untrusted buffer. Every length is compared with the bytes that remain before it is used."""

from __future__ import annotations

import os
from struct import Struct

from .errors import ArrayLengthError, GGUFError, HeaderSizeError, StringLengthError, TruncatedError
from .limits import MAX_HEADER_BYTES

PathLike = str | os.PathLike[str]

_LONG_STRING, _LONG_ARRAY = "a string longer than what the file has left", "an array longer than what the file has left"


class Cursor:
    """Reads fixed-size integers and strings at `pos`, never past `end` (all in bytes, exact Python ints)."""

    __slots__ = ("_u32", "_u64", "byte_order", "end", "path", "pos", "size", "view")

    def __init__(self, view: memoryview, path: PathLike, byte_order: str = "<") -> None:
        self.view, self.path, self.pos = view, path, 0
        self.size = len(view)
        self.end = min(self.size, MAX_HEADER_BYTES)
        self.set_byte_order(byte_order)

    def set_byte_order(self, byte_order: str) -> None:
        self.byte_order = byte_order
        self._u32, self._u64 = Struct(byte_order + "I"), Struct(byte_order + "Q")

    @property
    def remaining(self) -> int:
        return self.end - self.pos

    def take(self, n: int, field: str) -> int:
        """Skip `n` bytes that must exist and return where they start."""
        if n > self.end - self.pos:
            raise self.overrun(TruncatedError, "more bytes than the file has left", field, self.pos, n)
        start = self.pos
        self.pos += n
        return start

    def u32(self, field: str) -> int:
        return int(self._u32.unpack_from(self.view, self.take(4, field))[0])

    def u64(self, field: str) -> int:
        return int(self._u64.unpack_from(self.view, self.take(8, field))[0])

    def string(self, field: str) -> bytes:
        """A u64 length and that many bytes, copied."""
        start, length = self.pos, self.u64(field)
        if length > self.remaining:
            raise self.overrun(StringLengthError, _LONG_STRING, field, start, length)
        at = self.take(length, field)
        return bytes(self.view[at : at + length])

    def skip_string(self, field: str) -> None:
        start, length = self.pos, self.u64(field)
        if length > self.remaining:
            raise self.overrun(StringLengthError, _LONG_STRING, field, start, length)
        self.pos += length

    def skip_strings(self, count: int, field: str) -> None:
        """Walk over `count` strings, checking every length once. Nothing is allocated."""
        if count * 8 > self.remaining:
            raise self.overrun(ArrayLengthError, _LONG_ARRAY, field, self.pos - 8, count, 8)
        unpack, view, pos, end = self._u64.unpack_from, self.view, self.pos, self.end
        # The loop of 500,000 merges: local names and one comparison per string keep it near 0.1 us each.
        for i in range(count):
            if pos + 8 > end:
                self.pos = pos
                raise self.overrun(TruncatedError, f"ends before string {i:,} of {count:,}", f"{field}[{i}]", pos, 8)
            after = pos + 8 + unpack(view, pos)[0]
            if after > end:
                self.pos, length = pos + 8, after - pos - 8
                raise self.overrun(StringLengthError, _LONG_STRING, f"{field}[{i}]", pos, length)
            pos = after
        self.pos = pos

    def skip_items(self, count: int, item_bytes: int, field: str) -> int:
        """Walk over `count` fixed-size items and return where they start."""
        if count * item_bytes > self.remaining:
            raise self.overrun(ArrayLengthError, _LONG_ARRAY, field, self.pos - 8, count, item_bytes)
        return self.take(count * item_bytes, field)

    def overrun(
        self, error: type[GGUFError], problem: str, field: str, at: int, got: int, item_bytes: int = 1
    ) -> GGUFError:
        """`error` about `got` items of so many bytes; HeaderSizeError where only the limit for headers ends."""
        end, fitting = self.pos + got * item_bytes, max(self.remaining, 0) // item_bytes
        allowed = f"up to {fitting:,} bytes" if item_bytes == 1 else f"up to {fitting:,}"
        if self.end < self.size and end <= self.size:
            error, problem = HeaderSizeError, "the header is too large"
            got, allowed = end, f"up to {MAX_HEADER_BYTES:,} bytes"
        hint = "The file is damaged or incomplete; download or convert it again"
        return error(problem, path=self.path, offset=at, field=field, got=got, allowed=allowed, hint=hint)
