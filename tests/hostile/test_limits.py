"""Large headers: time linear in size, memory a small multiple of it, and limits that are reached."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from halfbyte.formats.errors import ModelFileError
from halfbyte.formats.gguf import GGUFFile, cursor, limits
from halfbyte.formats.gguf import errors as e

from .raw import I32, STR, U8, U64, Raw

MIB = 1 << 20


def many_keys(n: int) -> bytes:
    raw = Raw().header(n_kv=n)
    for i in range(n):
        raw.kv(f"{i:x}", U8, 0)
    return raw.done()


def many_tensors(n: int) -> bytes:
    raw = Raw().header(n)
    for i in range(n):
        raw.tensor(f"{i:x}", (1,), 24, 32 * i)
    return raw.pad().body(0).done() + bytes(32 * n)


def many_strings(n: int) -> bytes:
    """A header of `n` strings of 1 byte."""
    raw = Raw().header(n_kv=1).string("k").u32(9).u32(STR).u64(n)
    return raw.done() + (b"\1" + bytes(7) + b"x") * n


def parse(data: bytes) -> float:
    """Seconds to open."""
    started = time.perf_counter()
    GGUFFile.from_buffer(data)
    return time.perf_counter() - started


@pytest.mark.parametrize("make", [many_keys, many_tensors])
def test_most_keys_and_tensors_fit_in_time_and_memory(make: object) -> None:
    n = limits.MAX_KEYS if make is many_keys else limits.MAX_TENSORS
    data = make(n)  # type: ignore[operator]
    header = len(data) - (32 * n if make is many_tensors else 0)
    assert parse(data) < 5.0
    tracemalloc.start()
    try:
        file = GGUFFile.from_buffer(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(file.metadata) + len(file.tensors) == n
    assert peak <= 4 * header + 16 * MIB


def test_64_mb_of_distinct_keys_is_refused_at_once() -> None:
    n = 64 * MIB // 17
    data = Raw().header(n_kv=n).done() + b"\x04" + bytes(64 * MIB)
    started = time.perf_counter()
    with pytest.raises(e.CountError, match="n_kv"):
        GGUFFile.from_buffer(data)
    assert time.perf_counter() - started < 0.05


def test_64_mb_of_strings_takes_linear_time_and_no_memory() -> None:
    n = 64 * MIB // 9
    small, large = many_strings(n // 8), many_strings(n)
    tracemalloc.start()
    try:
        GGUFFile.from_buffer(small)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
    short, long = min(parse(small) for _ in range(3)), parse(large)
    assert long < 10.0
    assert long < 8 * 4 * short  # linear, with room for a busy machine


def test_a_vocabulary_opens_fast() -> None:
    """150,000 strings are walked in well under 0.1 s: bounds are checked, nothing is decoded."""
    words = [f"token{i}" for i in range(150_000)]
    data = Raw().header(n_kv=1).array("tokenizer.ggml.tokens", STR, words).done()
    assert min(parse(data) for _ in range(5)) < 0.15
    assert GGUFFile.from_buffer(data).metadata["tokenizer.ggml.tokens"] == words


def test_header_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursor, "MAX_HEADER_BYTES", 4096)
    long = Raw().header(n_kv=2).kv("a", STR, "x" * 5000).kv("b", U8, 1).done()
    for data in (
        long,
        Raw().header(n_kv=1).array("a", STR, ["x" * 90] * 60).done(),
        Raw().header(n_kv=1).array("a", I32, range(2000)).done(),
        Raw().header(n_kv=2).kv("a", STR, "x" * 4042).kv("b", U64, 1).done(),
    ):
        with pytest.raises(e.HeaderSizeError) as caught:
            GGUFFile.from_buffer(data)
        assert caught.value.offset is not None
    # What is also beyond the file is the file's fault.
    with pytest.raises(e.StringLengthError):
        GGUFFile.from_buffer(Raw().header(n_kv=1).string("a").u32(STR).u64(1 << 40).raw(bytes(5000)).done())
    GGUFFile.from_buffer(Raw().header(n_kv=1).kv("a", STR, "x" * 4000).done() + bytes(5000))


def test_sparse_file_of_a_terabyte_is_refused_quickly(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    head = Raw().header(n_kv=1).string("k").u32(9).u32(U8).u64(1 << 39).done()
    with open(path, "wb") as file:
        file.write(head)
        try:
            file.truncate(1 << 40)
        except OSError:
            pytest.skip("this file system has no sparse files of that size")
    started = time.perf_counter()
    with pytest.raises(e.HeaderSizeError):
        GGUFFile.open(path)
    assert time.perf_counter() - started < 0.1


def rich_file() -> bytes:
    raw = Raw().header(2, 6).kv("a", U8, 1).kv("b", STR, "text").kv("c", U64, 1 << 40)
    raw.array("d", STR, ["x", "", "yz"]).array("e", I32, [1, -2]).kv("general.alignment", 4, 64)
    raw.tensor("t", (32, 2), 8, 0).tensor("u", (5, 3), 0, 128)
    return raw.pad(64).body(128 + 60).done()


def test_every_truncation_is_refused() -> None:
    data = rich_file()
    GGUFFile.from_buffer(data)
    for k in range(len(data)):
        with pytest.raises(ModelFileError) as caught:
            GGUFFile.from_buffer(data[:k])
        assert caught.value.offset is not None
        assert caught.value.offset <= len(data)


def test_every_byte_changed_is_typed() -> None:
    data = rich_file()
    rng = np.random.default_rng(5)
    header = len(data) - 188
    for at in range(header):
        for value in {0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))}:
            changed = bytearray(data)
            changed[at] = value
            try:
                file = GGUFFile.from_buffer(changed)
            except ModelFileError:
                continue
            dict(file.metadata)
            for tensor in file.tensors.values():
                assert tensor.offset + tensor.n_bytes <= len(data)
                tensor.data.sum()
