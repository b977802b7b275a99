"""Open PyTorch checkpoints (.bin, .pt, .pth) in the zip form that torch.save has written since 2020.

    NAME/data.pkl     what tensors there are, read by pickled.py, which runs nothing
    NAME/data/KEY     the numbers, not compressed: tensors are views of the mapped file
    NAME/byteorder    "little", where it is there
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ..gguf.source import Source
from ..stored import DTYPE_BITS, StoredFile, StoredTensor
from .errors import TorchArchiveError, TorchTensorError
from .pickled import TensorView, read_pickle

MAX_PICKLE_BYTES = 64 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LOCAL_HEADER_MAGIC = b"PK\x03\x04"
_CONTAINERS = ("state_dict", "model", "module")  # where trainers put the weights beside other things
_SAVE = "Save the weights as safetensors where you trust them"
_AGAIN = "Download it again, or save the weights as safetensors"


class TorchFile(StoredFile):
    """A validated checkpoint. Use `TorchFile.open`, as a context manager or with `close()`.

    `tensors` has the tensors by name. Those that share a storage are views of the same bytes; ones that are not
    contiguous are refused by name.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        archive = _Archive(source)
        described = read_pickle(archive.pickle(), os.fspath(source.path))
        views = {name: archive.tensor(name, view) for name, view in _weights(described, source)}
        self.tensors: Mapping[str, StoredTensor] = MappingProxyType(views)


class _Archive:
    """Parts of the zip archive, as places in the file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        try:
            with zipfile.ZipFile(os.fspath(source.path)) as archive:
                parts = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as error:
            raise _no_archive(source, error) from None
        self._parts = {part.filename: part for part in parts}
        if len(self._parts) != len(parts):
            raise TorchArchiveError("two parts have one name", path=source.path, hint=_AGAIN)
        pickles = [name for name in self._parts if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise TorchArchiveError(
                f"{len(pickles)} parts are called data.pkl, where one describes the tensors", path=source.path,
                hint="It is another kind of archive, such as TorchScript; save a state_dict, or safetensors",
            )  # fmt: skip
        self._root = pickles[0].removesuffix("data.pkl")
        if f"{self._root}constants.pkl" in self._parts:
            raise TorchArchiveError("a TorchScript program, not weights", path=source.path, hint="Save a state_dict")
        order = f"{self._root}byteorder"
        if order in self._parts and self._bytes(order) != b"little":
            raise TorchArchiveError("numbers in big-endian order", path=source.path, field=order)

    def pickle(self) -> bytes:
        name = f"{self._root}data.pkl"
        size = self._parts[name].file_size
        if size > MAX_PICKLE_BYTES:
            raise TorchArchiveError("too large", path=self._source.path, field=name, got=size,
                                    allowed=f"up to {MAX_PICKLE_BYTES:,} bytes")  # fmt: skip
        return self._bytes(name)

    def tensor(self, name: str, view: TensorView) -> StoredTensor:
        """A tensor as bytes of the file. TorchTensorError where it reaches beyond its storage."""
        start, stop = self._place(f"{self._root}data/{view.storage.key}", name)

        def refuse(problem: str, got: object, hint: str = _AGAIN) -> TorchTensorError:
            return TorchTensorError(problem, path=self._source.path, field=name, got=got, hint=hint)

        lists = [view.shape, view.strides]
        if not all(isinstance(v, tuple) and all(type(n) is int and 0 <= n < 1 << 63 for n in v) for v in lists):
            raise refuse("no shape and strides", None)
        if type(view.offset) is not int or view.offset < 0 or len(view.shape) != len(view.strides):
            raise refuse("no place in a storage", lists)
        if not _is_contiguous(view.shape, view.strides):
            raise refuse("its rows do not follow each other: it is a view of another tensor", view.strides, _SAVE)
        size, count = DTYPE_BITS[view.dtype] // 8, math.prod(view.shape)
        first = start + view.offset * size
        if count and first + count * size > stop:
            raise refuse("it reaches beyond its storage", [view.offset, *view.shape])
        return StoredTensor(name, view.dtype, view.shape, first if count else start, count * size, self._source)

    def _bytes(self, name: str) -> bytes:
        start, stop = self._place(name, name)
        return bytes(self._source.view[start:stop])

    def _place(self, name: str, field: str) -> tuple[int, int]:
        """First byte and end of a part that is stored as it is, inside the file."""
        part = self._parts.get(name)
        if part is None:
            raise TorchArchiveError(f"the part {name!r} is missing", path=self._source.path, field=field, hint=_AGAIN)
        if part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1:
            raise TorchArchiveError("compressed or encrypted", path=self._source.path, field=name)
        at, fixed = part.header_offset, _LOCAL_HEADER.size
        if not 0 <= at <= self._source.size - fixed:
            raise TorchArchiveError("a part lies outside the file", path=self._source.path, field=name, hint=_AGAIN)
        head = _LOCAL_HEADER.unpack(self._source.view[at : at + fixed])
        start = at + fixed + head[9] + head[10]  # behind its name and its extra field
        if head[0] != _LOCAL_HEADER_MAGIC or part.file_size < 0 or start + part.file_size > self._source.size:
            raise TorchArchiveError("a part lies outside the file", path=self._source.path, field=name, hint=_AGAIN)
        return start, start + part.file_size


def _no_archive(source: Source, error: Exception) -> TorchArchiveError:
    """What to do about a file that is no whole zip archive."""
    head = bytes(source.view[:4])
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return TorchArchiveError(
            "a bare pickle, as PyTorch wrote checkpoints until 1.5, which this version does not read", path=source.path,
            hint="Take the repository's model.safetensors, or save the weights anew where you trust them",
        )  # fmt: skip
    if head == _LOCAL_HEADER_MAGIC:
        problem = "the archive has a beginning and no valid end: a download was interrupted"
        return TorchArchiveError(problem, path=source.path, hint=_AGAIN)
    return TorchArchiveError(f"no valid zip archive: {error}", path=source.path, hint=_AGAIN)


def _weights(described: Any, source: Source) -> Iterator[tuple[str, TensorView]]:
    """Names and tensors of a state_dict, which trainers may have put into another dict."""
    if isinstance(described, dict) and not any(isinstance(value, TensorView) for value in described.values()):
        inner = [described[name] for name in _CONTAINERS if isinstance(described.get(name), dict)]
        described = inner[0] if inner else described
    tensors = (
        {name: value for name, value in described.items() if isinstance(name, str) and isinstance(value, TensorView)}
        if isinstance(described, dict)
        else {}
    )
    if not tensors:
        raise TorchArchiveError(
            "it holds no tensors by name", path=source.path, hint="Save the state_dict of the model, or safetensors"
        )
    yield from tensors.items()


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the last dimension is the fastest and nothing lies between; dimensions of one element say nothing."""
    expected = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n > 1 and stride != expected:
            return 0 in shape
        expected *= n
    return True
