"""PyTorch checkpoints: tensors are read, nothing is run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.errors import ModelFileError
from halfbyte.formats.stored import to_float32
from halfbyte.formats.torchzip import TorchFile, TorchFileError
from halfbyte.formats.torchzip.errors import TorchArchiveError, TorchPickleError, TorchTensorError

from ..fixtures.make import torch_checkpoint


class Name:
    """Stands for a global in a pickle."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Stands for a call in a pickle."""

    def __init__(self, name: Name, *arguments: Any) -> None:
        self.name, self.arguments = name, arguments


class Storage:
    def __init__(self, key: Any = "0", count: Any = 4, kind: str = "FloatStorage") -> None:
        self.id = ("storage", Name("torch", kind), key, "cpu", count)


class Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the one in Python, whose steps can be added to
    """Writes such pickles as torch.save does, whatever they ask for."""

    def persistent_id(self, value: Any) -> Any:
        return value.id if isinstance(value, Storage) else None

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, Name):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.name)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


REBUILD = Name("torch._utils", "_rebuild_tensor_v2")


def tensor(offset: Any = 0, shape: Any = (2, 2), strides: Any = (2, 1), storage: Any = None) -> Call:
    return Call(REBUILD, storage or Storage(), offset, shape, strides, False, OrderedDict())


def archive(value: Any, folder: Path, *, compressed: bool = False, data: bytes | None = bytes(16)) -> Path:
    """A checkpoint whose pickle says `value`."""
    out = io.BytesIO()
    Pickler(out, protocol=2).dump(value)
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as made:
        made.writestr("archive/data.pkl", out.getvalue())
        if data is not None:
            made.writestr("archive/data/0", data)
    return path


def write_archive(folder: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """float32 arrays as a checkpoint, one after the other in one storage."""
    storage, said, offset = Storage(count=sum(one.size for one in arrays.values())), OrderedDict(), 0
    for name, one in arrays.items():
        said[name] = tensor(offset, one.shape, tuple(stride // 4 for stride in one.strides), storage)
        offset += one.size
    return archive(said, folder, data=b"".join(one.tobytes() for one in arrays.values()))


def test_what_torch_wrote() -> None:
    expected = torch_checkpoint.arrays()
    with TorchFile.open(torch_checkpoint.PATH) as found:
        assert found.tensors.keys() == expected.keys()
        for name, stored in found.tensors.items():
            assert stored.shape == expected[name].shape
            assert np.array_equal(to_float32(stored.raw, stored.dtype).reshape(stored.shape), expected[name]), name
        types = {name: found.tensors[name].dtype for name in ("half", "brain", "whole")}
    assert types == {"half": "F16", "brain": "BF16", "whole": "I64"}


def test_a_state_dict_inside_of_what_a_trainer_wrote(tmp_path: Path) -> None:
    with TorchFile.open(archive({"epoch": 3, "state_dict": {"w": tensor()}}, tmp_path)) as found:
        assert list(found.tensors) == ["w"]


class Payload:
    """Would make a file if anything ran it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


RAN = {
    "a call of the system": lambda marker: {"w": tensor(), "x": Payload(marker)},
    "eval": lambda marker: {"w": Call(Name("builtins", "eval"), f"__import__('os').mkdir({str(marker)!r})")},
    "a name inside torch": lambda marker: {"w": Call(Name("torch.serialization", "load"), "x")},
    "a name like an allowed one": lambda marker: {"w": Call(Name("collections", "OrderedDict.__init__"), 1)},
    "a tensor as a function": lambda marker: {"w": Call(tensor(), 1)},  # type: ignore[arg-type]
    "an object with a state": lambda marker: {"w": Name("torch.nn", "Linear"), "x": Path("y")},
}


@pytest.mark.parametrize("name", RAN)
def test_nothing_is_run(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    path = archive(RAN[name](marker), tmp_path)
    with pytest.raises(TorchPickleError, match=r"pytorch_model\.bin"):
        TorchFile.open(path)
    assert not marker.exists()


OUTSIDE = {
    "too many elements": tensor(shape=(2, 3), strides=(3, 1)),
    "an offset": tensor(offset=1),
    "a huge offset": tensor(offset=1 << 62),
    "a negative offset": tensor(offset=-1),
    "an offset that is true": tensor(offset=True),
    "a transposed view": tensor(strides=(1, 2)),
    "more strides than dimensions": tensor(strides=(2, 1, 1)),
    "a shape of text": tensor(shape="22"),
    "a huge shape": tensor(shape=(1 << 40, 1 << 40), strides=(1 << 40, 1)),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_tensors_must_lie_in_their_storage(name: str, tmp_path: Path) -> None:
    with pytest.raises(TorchTensorError, match="'w'"):
        TorchFile.open(archive({"w": OUTSIDE[name]}, tmp_path))


def test_old_and_half_files_are_called_that(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    whole = archive({"w": tensor()}, tmp_path).read_bytes()
    for data, said in (
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2), "until 1.5"),  # the number that such a file begins with
        (whole[: len(whole) // 2], "interrupted"),
        (b"\x80", "no valid zip"),
    ):
        path.write_bytes(data)
        with pytest.raises(ModelFileError, match=said):
            TorchFile.open(path)


def test_archives_that_are_none(tmp_path: Path) -> None:
    good = archive({"w": tensor()}, tmp_path)
    content = good.read_bytes()
    for size in range(0, len(content), 7):
        (tmp_path / "cut.bin").write_bytes(content[:size])
        with pytest.raises(ModelFileError):
            TorchFile.open(tmp_path / "cut.bin")
    for path in (
        archive({"w": tensor()}, tmp_path, compressed=True),
        archive({"w": tensor()}, tmp_path, data=None),
        archive([1, 2], tmp_path),
        archive({"w": 5}, tmp_path),
    ):
        with pytest.raises(TorchArchiveError):
            TorchFile.open(path)


def nested(depth: int) -> Any:
    """A tuple of a tuple twice, and so on: some instructions for 2**depth values."""
    value: Any = ()
    for _ in range(depth):
        value = (value, value)
    return value


ENDLESS = {
    "a key": {nested(1): 1},
    "a key of a dict in a dict": {"w": tensor(), "x": {(1,): 2}},
    "a shape": {"w": tensor(shape=nested(60))},
    "strides": {"w": tensor(strides=nested(60))},
    "an offset": {"w": tensor(offset=nested(60))},
    "a type": {"w": Call(Name("torch._utils", "_rebuild_tensor_v3"), Storage(), 0, (1,), (1,), False, (), nested(60))},
    "pairs": Call(Name("collections", "OrderedDict"), [(nested(1), 2)]),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_nothing_is_said_or_looked_up_that_has_no_end(name: str, tmp_path: Path) -> None:
    with pytest.raises(TorchFileError):
        TorchFile.open(archive(ENDLESS[name], tmp_path))


def test_a_key_as_deep_as_the_stack_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("archive/data.pkl", b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.")
    with pytest.raises(TorchPickleError, match="no plain value: tuple"):
        TorchFile.open(path)


def test_every_byte_of_the_pickle_may_be_wrong(tmp_path: Path) -> None:
    path = archive({"w": tensor()}, tmp_path)
    content = path.read_bytes()
    start = content.index(b"archive/data.pkl") + len("archive/data.pkl")
    for at in range(start, start + 160):
        for value in (0, 0x28, 0x52, 0x81, 0xFF):
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            try:
                TorchFile.open(path).close()
            except ModelFileError:
                continue
