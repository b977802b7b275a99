"""Open GGUF files: one file, a set of shards, or a buffer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from .container import logical_tensors
from .cursor import PathLike
from .errors import DuplicateTensorError, SplitError
from .header import Header, parse_header
from .metadata import Metadata
from .source import Source, buffer_source, open_source
from .split import SPLIT_COUNT, SPLIT_NO, check_shard, check_total, find_shards, shard_count
from .tensors import GGUFTensor


class GGUFFile:
    """A validated GGUF model. Use `GGUFFile.open`, as a context manager or with `close()`.

    `path` is the file that was opened (the first shard of a set), `paths` all of them, `size` their bytes together.
    `metadata` and `tensors` are mappings in file order. Tensors that a file stores as bytes, of the kinds in kinds.py,
    appear as what they stand for.
    """

    def __init__(self, sources: list[Source], headers: list[Header], *, complete: bool = True) -> None:
        first = headers[0]
        self._sources = sources
        self.path = Path(sources[0].path)
        self.paths = tuple(Path(source.path) for source in sources)
        self.version, self.byte_order, self.alignment = first.version, first.byte_order, first.alignment
        self.size = sum(source.size for source in sources)
        self.metadata = Metadata(first, sources[0])
        stored = _merge(sources, headers)
        tensors = logical_tensors(self.metadata, stored, complete=complete)
        self.tensors: Mapping[str, GGUFTensor] = MappingProxyType(tensors)

    @classmethod
    def open(cls, path: PathLike, *, use_mmap: bool = True, follow_splits: bool = True) -> GGUFFile:
        """Open and validate a file.

        A split model is followed from any of its shards, unless `follow_splits` is false. Metadata is that of the
        first shard. With `use_mmap` false the whole file is read into memory: slower, but immune to somebody
        truncating the file while it is in use, which kills a process that maps it.
        Raises FileAccessError, GGUFError subclasses and ResourceError.
        """
        sources = [open_source(path, use_mmap=use_mmap)]
        try:
            headers = [parse_header(sources[0])]
            count = shard_count(Metadata(headers[0], sources[0])) if follow_splits else 1
            if count > 1:
                sources.pop().close()
                headers = _open_shards(path, count, use_mmap, sources)
            return cls(sources, headers, complete=follow_splits)
        except BaseException:
            for source in sources:
                source.close()
            raise

    @classmethod
    def open_first(cls, path: PathLike) -> GGUFFile:
        """Open the file that holds the metadata: the first shard of a split model, found from any of them.

        `tensors` are those of that file alone, and the other shards need not be there.
        Raises FileAccessError, GGUFError subclasses and ResourceError.
        """
        file = cls.open(path, follow_splits=False)
        try:
            count = shard_count(file.metadata)
            if count > 1 and file.metadata.require(SPLIT_NO, int) != 0:
                file.close()
                file = cls.open(find_shards(path, count, first_only=True)[0], follow_splits=False)
                check_shard(file.metadata, 0, count)
        except BaseException:
            file.close()
            raise
        return file

    @classmethod
    def from_buffer(cls, buffer: Any, name: str = "<memory>") -> GGUFFile:
        """Validate a whole single-file model in memory (anything with the buffer protocol). Nothing is copied."""
        source = buffer_source(buffer, name)
        header = parse_header(source)
        if (count := shard_count(Metadata(header, source))) > 1:
            raise SplitError(f"a buffer cannot be one of {count} shards", path=name, field=SPLIT_COUNT, got=count)
        return cls([source], [header])

    def close(self) -> None:
        """Release the files. Arrays taken from `tensors` stay valid and keep their file mapped."""
        for source in self._sources:
            source.close()

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"GGUFFile({str(self.path)!r}, {len(self.metadata)} keys, {len(self.tensors)} tensors)"


def _open_shards(path: PathLike, count: int, use_mmap: bool, sources: list[Source]) -> list[Header]:
    """Open every shard of the set into `sources` (so that the caller can close them) and check that they agree."""
    headers = []
    for index, shard in enumerate(find_shards(path, count)):
        sources.append(open_source(shard, use_mmap=use_mmap))
        headers.append(parse_header(sources[-1]))
        check_shard(Metadata(headers[-1], sources[-1]), index, count)
    check_total(Metadata(headers[0], sources[0]), sum(len(header.tensors) for header in headers))
    return headers


def _merge(sources: list[Source], headers: list[Header]) -> dict[str, GGUFTensor]:
    if len(headers) == 1:
        return headers[0].tensors
    merged: dict[str, GGUFTensor] = {}
    for source, header in zip(sources, headers, strict=True):
        if twice := merged.keys() & header.tensors.keys():
            raise DuplicateTensorError("tensor is in two shards", path=source.path, field=min(twice))
        merged |= header.tensors
    return merged
