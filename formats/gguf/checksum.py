"""A checksum of written bytes that costs a small part of SHA-256, so that it makes no writer slower.

Blocks of 64 KiB become sums of their words times powers of an odd number, modulo 2**64, and SHA-256 hashes the sums.
Words are mixed with their own upper halves first, whose bits a product alone would not move. Every change of one word
changes the sum, and of other damage one case in billions goes unseen. It finds what disks, power cuts and killed
processes do, not what somebody does on purpose.
"""

from __future__ import annotations

import hashlib

import numpy as np

_BLOCK = 8192  # words of 64 bits
_BLOCKS = 4  # summed up at once: 256 KiB stay in the second cache
_POWERS = np.multiply.accumulate(np.full(_BLOCK, 0x9E3779B97F4A7C15, "<u8"))


class Checksum:
    """`update` in pieces of any size, then `hexdigest`."""

    def __init__(self) -> None:
        self._words = np.zeros((_BLOCKS, _BLOCK), "<u8")
        self._bytes = self._words.reshape(-1).view(np.uint8)
        self._upper = np.empty_like(self._words)
        self._used = self._length = 0
        self._sums = hashlib.sha256()

    def update(self, data: bytes | memoryview) -> None:
        new = np.frombuffer(data, np.uint8)
        self._length += new.size
        while new.size:
            part = new[: self._bytes.size - self._used]
            self._bytes[self._used : self._used + part.size] = part
            self._used, new = self._used + part.size, new[part.size :]
            if self._used == self._bytes.size:
                self._fold()

    def hexdigest(self) -> str:
        self._bytes[self._used :] = 0
        self._fold()
        self._sums.update(f"{self._length}".encode())
        return self._sums.hexdigest()

    def _fold(self) -> None:
        np.right_shift(self._words, np.uint64(32), out=self._upper)
        np.bitwise_xor(self._words, self._upper, out=self._words)
        self._sums.update(np.einsum("ij,j->i", self._words, _POWERS).tobytes())
        self._used = 0
