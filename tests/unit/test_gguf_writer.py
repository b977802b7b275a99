"""The writer: types, exact sizes, shards, and all or nothing under faults."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.errors import ResourceError, UnsupportedError
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter, ValueType
from halfbyte.formats.gguf.errors import WriteDenied, WriteError
from halfbyte.formats.gguf.tensors import SWAPPED


def small(path: Path, **options: Any) -> GGUFWriter:
    writer = GGUFWriter(path, **options)
    writer.add("general.architecture", "llama")
    writer.add_tensor("a", (2, 5), GGMLType.F32)
    writer.add_tensor("b", (3, 32), GGMLType.Q8_0)
    return writer


def fill(writer: GGUFWriter) -> None:
    writer.write_tensor("a", np.arange(10, dtype=np.float32).reshape(2, 5))
    writer.write_tensor("b", bytes(range(102)))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize(
    ("value", "type_", "element"),
    [
        ("text", ValueType.STRING, None),
        (b"\xff", ValueType.STRING, None),
        (True, ValueType.BOOL, None),
        (np.bool_(False), ValueType.BOOL, None),
        (0, ValueType.UINT32, None),
        (2**32 - 1, ValueType.UINT32, None),
        (-1, ValueType.INT32, None),
        (2**32, ValueType.UINT64, None),
        (-(2**31) - 1, ValueType.INT64, None),
        (np.uint8(3), ValueType.UINT32, None),
        (0.5, ValueType.FLOAT32, None),
        (np.float64(0.5), ValueType.FLOAT32, None),
        ([1, -2], ValueType.ARRAY, ValueType.INT32),
        ([1, 2**31], ValueType.ARRAY, ValueType.UINT32),
        ([-1, 2**31], ValueType.ARRAY, ValueType.INT64),
        ([2**63], ValueType.ARRAY, ValueType.UINT64),
        ([True, False], ValueType.ARRAY, ValueType.BOOL),
        (["a", ""], ValueType.ARRAY, ValueType.STRING),
        ((0.5, 1.0), ValueType.ARRAY, ValueType.FLOAT32),
        (np.array([1, 2], np.int8), ValueType.ARRAY, ValueType.INT8),
        (np.array([1, 2], ">u2"), ValueType.ARRAY, ValueType.UINT16),
        (np.array([1.5]), ValueType.ARRAY, ValueType.FLOAT64),
    ],
)
def test_types_are_inferred(value: Any, type_: ValueType, element: ValueType | None, tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf")
    writer.add("key", value)
    writer.close()
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        assert file.metadata.value_type("key") is type_
        assert file.metadata.element_type("key") is element
        found = file.metadata["key"]
        wanted = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
        assert np.array_equal(np.asarray(found), np.asarray(wanted))


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (None, None),
        ({"a": 1}, None),
        ([], None),
        ([1, "a"], None),
        ([1, 0.5], None),
        ([[1]], None),
        (2**64, None),
        ([-1, 2**63], None),
        (256, ValueType.UINT8),
        (-1, ValueType.UINT64),
        ([300], ValueType.INT8),
        (np.array([300]), ValueType.INT8),
        (1e300, ValueType.FLOAT32),
        (1.5, ValueType.INT32),
        (1, ValueType.BOOL),
        (True, ValueType.UINT8),
        ("1", ValueType.UINT32),
        (1, ValueType.STRING),
        (1, ValueType.ARRAY),
        (np.zeros((2, 2)), None),
        (np.zeros(2, np.complex64), None),
        ("\ud800", None),
    ],
)
def test_values_that_do_not_fit_are_refused(value: object, type_: ValueType | None, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="key"):
        GGUFWriter(tmp_path / "m.gguf").add("key", value, type_)


@pytest.mark.parametrize("name", ["", "n" * 64, "a\0b", "\ud800"])
def test_tensor_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="tensor name"):
        GGUFWriter(tmp_path / "m.gguf").add_tensor(name, (1,), GGMLType.F32)


@pytest.mark.parametrize("shape", [(-1,), (31,), (1,) * 5, (2**40, 2**40, 32)])
def test_shapes(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        GGUFWriter(tmp_path / "m.gguf").add_tensor("t", shape, GGMLType.Q8_0)


def test_duplicates_and_reserved_keys(tmp_path: Path) -> None:
    writer = small(tmp_path / "m.gguf")
    with pytest.raises(WriteError, match="twice"):
        writer.add("general.architecture", "x")
    with pytest.raises(WriteError, match="twice"):
        writer.add_tensor("a", (1,), GGMLType.F32)
    with pytest.raises(WriteError, match="split"):
        writer.add("split.no", 0)


@pytest.mark.parametrize("bad", [0, 3, 1 << 21, "32"])
def test_alignment_is_checked(bad: Any, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"general\.alignment"):
        GGUFWriter(tmp_path / "m.gguf", alignment=bad)


def test_options_are_checked(tmp_path: Path) -> None:
    for options in (
        {"version": 1}, {"byte_order": "="}, {"split_max_tensors": 0}, {"split_max_tensors": 1, "split_counts": [1]},
    ):  # fmt: skip
        with pytest.raises(WriteError):
            GGUFWriter(tmp_path / "m.gguf", **options)  # type: ignore[arg-type]
    for counts in ([], [1, 1], [2, -1]):
        writer = GGUFWriter(tmp_path / "m.gguf", split_counts=counts)
        writer.add_tensor("a", (1,), GGMLType.I8)
        with pytest.raises(WriteError, match="1 were declared"):
            writer.open()


def test_data_may_come_in_any_form(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    forms: list[Any] = [
        array,
        array.tobytes(),
        bytearray(array.tobytes()),
        memoryview(array),
        [array[:1], array[1:].tobytes()],
        (row for row in array),
        np.asfortranarray(array),
        array.astype(">f4"),
        np.repeat(array, 2, axis=1)[:, ::2],
        array.view(np.uint8),
    ]
    for form in forms:
        writer = GGUFWriter(tmp_path / "m.gguf")
        writer.add_tensor("t", (4, 6), GGMLType.F32)
        with writer.open():
            writer.write_tensor("t", form)
        with GGUFFile.open(tmp_path / "m.gguf") as file:
            assert file.tensors["t"].data.tobytes() == array.tobytes()


@pytest.mark.parametrize("data", [bytes(39), bytes(41), [bytes(20), bytes(21)], [], 5, "text", ["text"], [5]])
def test_wrong_sizes_leave_nothing(data: Any, tmp_path: Path) -> None:
    writer = small(tmp_path / "m.gguf")
    with pytest.raises(WriteError, match=r"'a' has 40 bytes|tensor data"), writer.open():
        writer.write_tensor("a", data)
    assert names(tmp_path) == []


def test_order_and_completeness(tmp_path: Path) -> None:
    writer = small(tmp_path / "m.gguf")
    with pytest.raises(WriteError, match="wants 'a' now"), writer.open():
        writer.write_tensor("b", bytes(102))
    writer = small(tmp_path / "m.gguf")
    with pytest.raises(WriteError, match="'b' was declared but not written"), writer.open():
        writer.write_tensor("a", bytes(40))
    writer = small(tmp_path / "m.gguf")
    with pytest.raises(WriteError, match="wants nothing more"), writer.open():
        fill(writer)
        writer.write_tensor("a", bytes(40))
    assert names(tmp_path) == []


def test_late_declarations_are_refused(tmp_path: Path) -> None:
    writer = small(tmp_path / "m.gguf")
    with writer.open():
        with pytest.raises(WriteError, match="before the header"):
            writer.add("x", 1)
        with pytest.raises(WriteError, match="before the header"):
            writer.open()
        fill(writer)
    with pytest.raises(WriteError, match="closed"):
        writer.write_tensor("a", bytes(40))


def test_an_error_in_the_block_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"old")
    writer = small(path)
    with pytest.raises(KeyboardInterrupt), writer.open():
        writer.write_tensor("a", bytes(40))
        assert names(tmp_path) == ["m.gguf", "m.gguf.partial"]
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["m.gguf"]


def test_stale_partial_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "m.gguf.partial").write_bytes(b"GGUF" + b"x" * 10_000)
    with small(tmp_path / "m.gguf") as writer:
        fill(writer)
    assert names(tmp_path) == ["m.gguf"]
    assert (tmp_path / "m.gguf").stat().st_size == writer.plan()[0].size


@pytest.mark.parametrize("name", ["m.gguf.partial", "m.gguf.partial.journal"])
def test_what_others_have_under_these_names_stays(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(WriteError, match="something else is there; move it away"), small(tmp_path / "m.gguf") as writer:
        fill(writer)
    assert (tmp_path / name).read_bytes() == b"precious" and not (tmp_path / "m.gguf").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_a_hard_link_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(b"GGUF precious")
    os.link(tmp_path / "other.gguf", tmp_path / "m.gguf.partial")
    with pytest.raises(WriteError, match="another name"), small(tmp_path / "m.gguf") as writer:
        fill(writer)
    assert (tmp_path / "other.gguf").read_bytes() == b"GGUF precious"


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    first = small(tmp_path / "m.gguf")
    with first.open():
        with pytest.raises(WriteError, match="another process"):
            small(tmp_path / "m.gguf").open()
        fill(first)
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        assert list(file.tensors) == ["a", "b"]


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="no O_NOFOLLOW here")
def test_partial_is_never_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "m.gguf.partial").symlink_to(victim)
    with pytest.raises(WriteError):
        small(tmp_path / "m.gguf").open()
    assert victim.read_bytes() == b"precious"


def test_full_disk_is_seen_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr("halfbyte.formats.gguf.durable.shutil.disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match=r"bytes are needed, 100 are free"):
        small(tmp_path / "m.gguf").open()
    assert names(tmp_path) == []


def test_bad_targets(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="is a directory"):
        small(tmp_path).open()
    with pytest.raises(WriteError, match=r"No such file|cannot find"):
        small(tmp_path / "absent" / "m.gguf").open()


def fail_nth(monkeypatch: pytest.MonkeyPatch, name: str, n: int, code: int) -> None:
    """Make call number `n` of os.`name` (or of file writes) fail."""
    real = getattr(os, name)
    calls = iter(range(1000))

    def faulty(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == n:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    monkeypatch.setattr(f"halfbyte.formats.gguf.durable.os.{name}", faulty)


@pytest.mark.parametrize(
    ("call", "n", "code", "error", "left"),
    [
        ("open", 0, errno.EACCES, WriteError, []),
        ("open", 0, errno.EROFS, WriteDenied, []),
        ("ftruncate", 0, errno.EIO, WriteError, []),
        ("fsync", 0, errno.EIO, WriteError, []),
        ("fsync", 0, errno.ENOSPC, ResourceError, []),
        ("fsync", 2, errno.EIO, WriteError, []),
        # The files are complete when a rename is refused: they stay, and the first shard has no name yet.
        ("replace", 0, errno.EACCES, WriteError, ["1.partial", "2.partial", "3.partial"]),
        ("replace", 2, errno.EACCES, WriteError, ["1.partial", "2", "3"]),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="counts POSIX calls")
def test_faults(
    call: str,
    n: int,
    code: int,
    error: type[Exception],
    left: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer = small(tmp_path / "m.gguf", split_max_tensors=1)
    writer.add_tensor("c", (1,), GGMLType.I8)
    fail_nth(monkeypatch, call, n, code)
    with pytest.raises(error), writer.open():
        fill(writer)
        writer.write_tensor("c", b"x")
    monkeypatch.undo()
    numbers = [name.replace("m-0000", "").replace("-of-00003.gguf", "") for name in names(tmp_path)]
    assert (numbers if call == "replace" else [x for x in numbers if "partial" not in x]) == left
    if call in ("fsync", "replace"):
        assert numbers == left


class FaultyFile:
    """A file whose write number `n` fails."""

    def __init__(self, file: Any, n: int) -> None:
        self.file, self.left = file, n

    def write(self, data: bytes) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self.file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("n", range(5))
def test_every_failing_write_is_a_full_disk_and_leaves_nothing(
    n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fdopen
    monkeypatch.setattr("halfbyte.formats.gguf.durable.os.fdopen", lambda *a, **k: FaultyFile(real(*a, **k), n))
    writer = small(tmp_path / "m.gguf")
    with pytest.raises(ResourceError, match="disk is full"), writer.open():
        fill(writer)
    assert names(tmp_path) == []


def test_what_cannot_be_read_back_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = small(tmp_path / "m.gguf")
    with pytest.raises(Exception, match="version"), writer.open():
        fill(writer)
        assert writer._output is not None
        file = writer._output._files[0]._file
        file.seek(4)
        file.write(b"\x09\0\0\0")
    assert names(tmp_path) == []


def test_memory_does_not_grow_with_the_tensor(tmp_path: Path) -> None:
    def rows(n: int) -> Iterator[np.ndarray[Any, Any]]:
        for i in range(n):
            yield np.full((64, 1024), i, np.float32)

    peaks = []
    for order in "<>":
        for n in (40, 160):
            writer = GGUFWriter(tmp_path / "m.gguf", byte_order=order)
            writer.add_tensor("t", (64 * n, 1024), GGMLType.F32)
            tracemalloc.start()
            with writer.open():
                writer.write_tensor("t", rows(n))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert max(peaks) < 8 << 20  # 40 MB tensors
    assert abs(peaks[1] - peaks[0]) < 1 << 20


def test_a_large_strided_array_is_copied_in_parts(tmp_path: Path) -> None:
    array = np.zeros((1 << 20, 48), np.int8).T  # 48 MB in 48 rows, none of them contiguous
    array[5, 7] = 3
    writer = GGUFWriter(tmp_path / "m.gguf")
    writer.add_tensor("t", array.shape, GGMLType.I8)
    with writer.open():
        writer.write_tensor("t", array)
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        data = file.tensors["t"].data
        assert (data[5, 7], int(data.sum())) == (3, 3)


@pytest.mark.parametrize(("options", "groups"), [
    ({"split_max_tensors": 2}, [["a", "b"], ["c", "d"], ["e"]]),
    ({"split_max_bytes": 1000}, [["a", "b"], ["c"], ["d", "e"]]),  # c alone is larger
    ({"split_max_bytes": 10_000}, [["a", "b", "c", "d", "e"]]),
    ({"split_max_bytes": 1}, [["a"], ["b"], ["c"], ["d"], ["e"]]),
    ({"split_counts": [0, 1, 3, 1]}, [[], ["a"], ["b", "c", "d"], ["e"]]),
])  # fmt: skip
def test_shards(options: dict[str, Any], groups: list[list[str]], tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "big.v1.gguf", alignment=64, **options)
    writer.add("general.name", "x")
    sizes = {"a": 100, "b": 400, "c": 2000, "d": 400, "e": 64}
    for name, n in sizes.items():
        writer.add_tensor(name, (n,), GGMLType.I8)
    with writer.open():
        for name, n in sizes.items():
            writer.write_tensor(name, bytes([ord(name)]) * n)
    count = len(groups)
    wanted = [f"big.v1-{i + 1:05d}-of-{count:05d}.gguf" for i in range(count)] if count > 1 else ["big.v1.gguf"]
    assert names(tmp_path) == wanted
    for name, group in zip(wanted, groups, strict=True):
        with GGUFFile.open(tmp_path / name, follow_splits=False) as shard:
            assert list(shard.tensors) == group
            assert shard.alignment == 64
    with GGUFFile.open(tmp_path / wanted[-1]) as file:
        assert list(file.tensors) == list(sizes)
        assert file.metadata["general.name"] == "x"
        assert ("split.count" in file.metadata) == (count > 1)
        for name, n in sizes.items():
            assert file.tensors[name].data.tobytes() == bytes([ord(name)]) * n


def test_a_copy_of_shards_is_one_whole_file(tmp_path: Path) -> None:
    with small(tmp_path / "m.gguf", split_max_tensors=1) as writer:
        fill(writer)
    with GGUFFile.open(tmp_path / "m-00001-of-00002.gguf") as file:
        copy = GGUFWriter(tmp_path / "copy.gguf")
        copy.add_all(file.metadata, exclude=["general.architecture"])
        copy.add("general.architecture", "other")
        for tensor in file.tensors.values():
            copy.add_tensor(tensor.name, tensor.shape, tensor.type)
        with copy.open():
            for tensor in file.tensors.values():
                copy.write_tensor(tensor.name, tensor.data)
    with GGUFFile.open(tmp_path / "copy.gguf") as file:
        assert dict(file.metadata) == {"general.architecture": "other"}
        assert list(file.tensors) == ["a", "b"]


def test_an_empty_model(tmp_path: Path) -> None:
    GGUFWriter(tmp_path / "m.gguf").close()
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        assert len(file.metadata) == len(file.tensors) == 0


def test_big_endian_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(SWAPPED, GGMLType.IQ2_XXS)
    writer = GGUFWriter(tmp_path / "m.gguf", byte_order=">")
    with pytest.raises(UnsupportedError, match="IQ2_XXS"):
        writer.add_tensor("t", (256,), GGMLType.IQ2_XXS)
    writer.add_tensor("f", (2,), GGMLType.F32)
    with pytest.raises(WriteError, match="whole blocks"), writer.open():
        writer.write_tensor("f", [bytes(3), bytes(5)])
