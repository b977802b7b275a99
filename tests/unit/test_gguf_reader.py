"""Tensor views: zero copy, read-only, alive as long as they are used."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest
from halfbyte.formats.errors import ModelFileError, ResourceError, UnsupportedError
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter
from halfbyte.formats.gguf.tensors import SWAPPED
from halfbyte.formats.gguf.types import BLOCKS

from ..hostile.raw import STR, Raw


def model(order: str = "<") -> bytes:
    raw = Raw(order).header(3, 1).array("tokens", STR, ["a", "b"])
    raw.tensor("q", (64, 3, 2), GGMLType.Q8_0, 0).tensor("f", (5, 3), GGMLType.F32, 416).tensor("s", (), 0, 480)
    return raw.pad().body(484).done()


def test_attributes() -> None:
    file = GGUFFile.from_buffer(model(), name="m")
    q = file.tensors["q"]
    assert (q.name, q.type, q.ne, q.shape) == ("q", GGMLType.Q8_0, (64, 3, 2), (2, 3, 64))
    assert (q.n_elements, q.row_bytes, q.n_bytes, q.path) == (384, 68, 408, "m")
    assert q.data.shape == (2, 3, 68)
    assert file.tensors["f"].offset == q.offset + 416
    assert file.tensors["s"].shape == (1,)
    assert "3 tensors" in repr(file)
    assert (file.version, file.byte_order, file.alignment, file.size) == (3, "<", 32, len(model()))


def test_views_are_not_copies_and_read_only(tmp_path: Path) -> None:
    buffer = np.frombuffer(model(), np.uint8)
    assert np.shares_memory(GGUFFile.from_buffer(buffer).tensors["q"].data, buffer)
    writable = bytearray(model())
    path = tmp_path / "m.gguf"
    path.write_bytes(writable)
    for file in (GGUFFile.from_buffer(writable), GGUFFile.open(path), GGUFFile.open(path, use_mmap=False)):
        data = file.tensors["f"].data
        assert not data.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            data[0, 0] = 1
        assert np.shares_memory(data, file.tensors["f"].data)


def _flags_of(path: Path) -> str:
    """What the kernel is told of the mapping of a file."""
    parts = Path("/proc/self/smaps").read_text(encoding="utf-8").partition(str(path))[2].partition("VmFlags:")
    return parts[2].partition("\n")[0]


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this system has no pages of 2 MB to ask for"
)
def test_maps_ask_for_huge_pages(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(model())
    with GGUFFile.open(path) as file:
        assert " hg" in _flags_of(path), file


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked")
def test_a_system_that_refuses_huge_pages_opens_files_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(model())
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 12345)
    with GGUFFile.open(path) as file:
        assert file.tensors["f"].shape == (3, 5)


def test_views_survive_close_and_the_file_is_released_after_them(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(model())
    with GGUFFile.open(path) as file:
        tensor = file.tensors["f"]
        data = tensor.data
    assert data.tobytes() == model()[tensor.offset : tensor.offset + 60]
    with pytest.raises(ValueError, match="closed"):
        _ = tensor.data
    with pytest.raises(ValueError, match="closed"):
        file.metadata["tokens"]
    file.close()  # twice is fine
    del data
    path.unlink()  # Windows would refuse while the file is mapped


def test_forgotten_bytes_can_be_read_again(tmp_path: Path) -> None:
    x = np.arange(1 << 16, dtype=np.float32)
    writer = GGUFWriter(tmp_path / "a.gguf")
    writer.add_tensor("x", x.shape, GGMLType.F32)
    with writer.open():
        writer.write_tensor("x", x)
    with GGUFFile.open(tmp_path / "a.gguf") as file:
        data = file.tensors["x"].data
        for _ in range(2):
            np.testing.assert_array_equal(data.view(np.float32), x)
            file.tensors["x"].forget()
    with GGUFFile.open(tmp_path / "a.gguf", use_mmap=False) as file:
        file.tensors["x"].forget()
        np.testing.assert_array_equal(file.tensors["x"].data.view(np.float32), x)


def test_decoded_metadata_survives_close() -> None:
    with GGUFFile.from_buffer(model()) as file:
        assert file.metadata["tokens"] == ["a", "b"]
    assert file.metadata["tokens"] == ["a", "b"]


@pytest.mark.parametrize("type_", [GGMLType.F32, GGMLType.F16, GGMLType.BF16, GGMLType.I64, GGMLType.F64, GGMLType.I8])
def test_big_endian_numbers_are_swapped(type_: GGMLType) -> None:
    n = 6 * type_.block_bytes
    little = np.arange(n, dtype=np.uint8)
    big = little.reshape(6, -1)[:, ::-1].tobytes()
    data = Raw(">").header(1).tensor("t", (3, 2), type_).pad().raw(big).done()
    tensor = GGUFFile.from_buffer(data).tensors["t"]
    assert tensor.data.tobytes() == little.tobytes()
    assert not tensor.data.flags.writeable


def test_big_endian_blocks_swap_their_scales_only() -> None:
    block = bytes([0x3C, 0x00]) + bytes(range(32))  # a Q8_0 block: scale 1.0 in big-endian, 32 weights
    data = Raw(">").header(1).tensor("t", (32,), GGMLType.Q8_0).pad().raw(block).done()
    assert GGUFFile.from_buffer(data).tensors["t"].data.tobytes() == b"\x00\x3c" + bytes(range(32))


def test_big_endian_types_without_a_definition_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(SWAPPED, GGMLType.IQ2_XXS)  # there is none at present
    data = Raw(">").header(1).tensor("t", (256,), GGMLType.IQ2_XXS).pad().raw(bytes(66)).done()
    tensor = GGUFFile.from_buffer(data).tensors["t"]
    with pytest.raises(UnsupportedError, match="IQ2_XXS"):
        _ = tensor.data


def test_every_type_has_its_size() -> None:
    for type_, (elements, n_bytes) in BLOCKS.items():
        if not type_.on_disk:
            continue  # test_container.py
        data = Raw().header(1).tensor("t", (2 * elements, 3), type_).pad().raw(bytes(6 * n_bytes)).done()
        assert GGUFFile.from_buffer(data).tensors["t"].data.shape == (3, 2 * n_bytes)


def test_a_file_that_does_not_fit_is_a_resource_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(model())

    def fail(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr("halfbyte.formats.gguf.source.mmap.mmap", fail)
    with pytest.raises(ResourceError, match="does not fit"):
        GGUFFile.open(path)


def test_failed_open_releases_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(model()[:-1])
    with pytest.raises(Exception, match="ends before this tensor's data"):
        GGUFFile.open(path)
    path.unlink()


@pytest.mark.parametrize(
    ("data", "got", "allowed"),
    [
        (Raw().header(0, 1).string("k").u32(8).u64(200).raw(bytes(10)), 200, "up to 10 bytes"),
        (Raw().header(0, 1).string("k").u32(9).u32(4).u64(1 << 40).raw(bytes(10)), 1 << 40, "up to 2"),
        (Raw().header(0, 1).string("k").u32(9).u32(8).u64(3).raw(bytes(10)), 3, "up to 1"),
        (Raw().header(1).tensor("a", (3,), GGMLType.F32).pad().raw(bytes(11)), 76, "up to byte 75"),
    ],
)
def test_lengths_that_cannot_be_say_what_could(data: Raw, got: int, allowed: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        GGUFFile.from_buffer(data.done())
    assert (caught.value.got, caught.value.allowed) == (got, allowed)
    assert f"(got {got}, allowed: {allowed})" in str(caught.value)
