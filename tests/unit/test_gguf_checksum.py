"""The checksum of written bytes."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from halfbyte.formats.gguf.checksum import Checksum

BLOCK = 1 << 16


def of(*pieces: bytes) -> str:
    checksum = Checksum()
    for piece in pieces:
        checksum.update(piece)
    return checksum.hexdigest()


def by_definition(data: bytes) -> list[int]:
    """The sum of each block, in exact integers."""
    padded = data.ljust(-(-len(data) // (4 * BLOCK)) * 4 * BLOCK, b"\0")
    words = [[int(w) ^ int(w) >> 32 for w in block] for block in np.frombuffer(padded, "<u8").reshape(-1, BLOCK // 8)]
    powers = [pow(0x9E3779B97F4A7C15, i + 1, 1 << 64) for i in range(BLOCK // 8)]
    return [sum(w * p for w, p in zip(block, powers, strict=True)) % (1 << 64) for block in words]


def test_it_is_what_it_says() -> None:
    data = np.random.default_rng(1).bytes(BLOCK + 1000)
    sums = np.array(by_definition(data), "<u8").tobytes()
    assert of(data) == hashlib.sha256(sums + str(len(data)).encode()).hexdigest()


@pytest.mark.parametrize("n", [0, 1, BLOCK, 4 * BLOCK - 1, 4 * BLOCK, 4 * BLOCK + 1, 9 * BLOCK + 77])
def test_pieces_make_no_difference_and_lengths_do(n: int) -> None:
    data, rng = np.random.default_rng(2).bytes(n), np.random.default_rng(3)
    cuts = [0, *sorted(rng.integers(0, n + 1, 20)), n]
    assert of(*(data[a:b] for a, b in itertools.pairwise(cuts))) == of(data)
    assert of(data + b"\0") != of(data)


def test_what_may_happen_to_a_file_is_seen() -> None:
    data = np.random.default_rng(4).bytes(6 * BLOCK)
    seen = {of(data)}
    damaged = [data[: -BLOCK + i] + bytes([data[-BLOCK + i] ^ 1 << i % 8]) + data[-BLOCK + i + 1 :] for i in range(99)]
    pages = [data[i : i + 4096] for i in range(0, len(data), 4096)]
    damaged += [b"".join([*pages[:i], bytes(4096), *pages[i + 1 :]]) for i in range(len(pages))]  # lost
    damaged += [b"".join([*pages[:i], pages[0], *pages[i + 1 :]]) for i in range(1, len(pages))]  # in the wrong place
    damaged += [b"".join([*pages[:i], pages[i + 1], pages[i], *pages[i + 2 :]]) for i in range(len(pages) - 1)]
    for data in damaged:
        found = of(data)
        assert found not in seen
        seen.add(found)
