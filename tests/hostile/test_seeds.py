"""Every named seed gets its verdict, from a buffer and from a file, in bounded time and memory."""

from __future__ import annotations

import contextlib
import gc
import time
import tracemalloc
from pathlib import Path

import pytest
from halfbyte.formats.errors import ModelFileError
from halfbyte.formats.gguf import GGUFFile
from halfbyte.formats.gguf import errors as gguf_errors

from .seeds import SEEDS, Seed

HOSTILE = [seed for seed in SEEDS if seed.error]
CONTROLS = [seed for seed in SEEDS if not seed.error]


def test_names_are_unique_and_many() -> None:
    assert len({seed.name for seed in SEEDS}) == len(SEEDS)
    assert len(HOSTILE) >= 120
    assert len(CONTROLS) >= 30


def test_every_error_class_of_the_reader_has_a_seed() -> None:
    classes = {c for c in vars(gguf_errors).values() if isinstance(c, type) and issubclass(c, gguf_errors.GGUFError)}
    # HeaderSizeError needs a file of 256 MB: test_limits.py lowers the limit instead.
    assert classes - {seed.error for seed in HOSTILE} == {gguf_errors.GGUFError, gguf_errors.HeaderSizeError}


def check_error(seed: Seed, error: ModelFileError) -> None:
    assert type(error) is seed.error, str(error)
    if seed.field is not None:
        assert error.field == seed.field
    if seed.offset is not None:
        assert error.offset == seed.offset
    assert error.field is not None
    assert str(error.path) in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize("seed", HOSTILE, ids=lambda seed: seed.name)
def test_refused(seed: Seed, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError) as buffer:
        GGUFFile.from_buffer(seed.data)
    check_error(seed, buffer.value)
    path = tmp_path / "model.gguf"
    path.write_bytes(seed.data)
    for use_mmap in (True, False):
        with pytest.raises(ModelFileError) as file:
            GGUFFile.open(path, use_mmap=use_mmap)
        check_error(seed, file.value)


@pytest.mark.parametrize("seed", CONTROLS, ids=lambda seed: seed.name)
def test_control_loads(seed: Seed, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(seed.data)
    with GGUFFile.open(path) as file, GGUFFile.from_buffer(seed.data) as buffer:
        assert [*file.metadata] == [*buffer.metadata]
        for key in file.metadata:
            assert str(file.metadata[key]) == str(buffer.metadata[key])
        for name, tensor in file.tensors.items():
            start = tensor.offset
            assert tensor.data.tobytes() == seed.data[start : start + tensor.n_bytes]
            assert buffer.tensors[name].data.tobytes() == tensor.data.tobytes()
            assert tensor.data.shape == (*tensor.shape[:-1], tensor.row_bytes)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_time_and_memory_are_bounded(seed: Seed) -> None:
    gc.disable()  # among thousands of tests a collection alone takes longer than is allowed here
    tracemalloc.start()
    try:
        started = time.perf_counter()
        with contextlib.suppress(ModelFileError):
            GGUFFile.from_buffer(seed.data)
        elapsed = time.perf_counter() - started
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()
    assert peak <= 4 * len(seed.data) + (16 << 20)
    # 32,768 keys take longer than 0.1 s under tracemalloc on a slow machine; test_limits.py times them without.
    assert elapsed < (0.1 if len(seed.data) < 100_000 else 2.0)
