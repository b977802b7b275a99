"""The bytes of one file: a read-only map, or a buffer in memory."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ResourceError
from .cursor import PathLike
from .errors import FileAccessError, MissingFileError, NotGGUFError
from .sniff import GET_GGUF, describe_foreign


class Source:
    """Read-only bytes under a name. `array` is the whole file as uint8; views of it keep the map alive."""

    __slots__ = ("_buffer", "_map", "path", "size")

    def __init__(self, buffer: memoryview, path: PathLike, mapped: mmap.mmap | None = None) -> None:
        self.path, self.size = path, len(buffer)
        self._buffer: memoryview | None = buffer
        self._map = mapped

    @property
    def view(self) -> memoryview:
        if self._buffer is None:
            raise ValueError(f"{os.fspath(self.path)} is closed")
        return self._buffer

    @property
    def array(self) -> NDArray[np.uint8]:
        return np.frombuffer(self.view, np.uint8)

    def forget(self, start: int, stop: int) -> None:
        """Give back the memory of bytes that will not be read again soon. They can be read all the same."""
        if sys.platform == "win32" or self._map is None:
            return
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
        if first < last:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def close(self) -> None:
        """Let go of the file. Arrays that still view it keep the map open until they are gone."""
        if self._buffer is None:
            return
        mapped, self._map, self._buffer = self._map, None, None
        if mapped is not None:
            # BufferError: NumPy views are alive; the file is unmapped with the last of them.
            with contextlib.suppress(BufferError):
                mapped.close()


def open_source(path: PathLike, *, use_mmap: bool = True) -> Source:
    """Open a file. Raises FileAccessError with the cause and the next step."""
    try:
        _refuse_special(path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                problem, hint = describe_foreign(b"", 0)
                raise NotGGUFError(problem, path=path, offset=0, field="magic", hint=hint)
            if not use_mmap:
                return Source(memoryview(file.read()).toreadonly(), path)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            _ask_for_huge_pages(mapped)
    except MemoryError as error:
        raise ResourceError(f"{os.fspath(path)} does not fit into memory or address space") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path; the file shrank to nothing
        raise _explain(path, error) from error
    return Source(memoryview(mapped), path, mapped)


def _ask_for_huge_pages(mapped: mmap.mmap) -> None:
    """Where the system can hold files in pages of 2 MB, let it read this one into such: weights are read faster where
    page tables are slow to walk, as in virtual machines (`python -m benchmarks.pages`), and a load has one page
    fault for 512.

    What other programs read before stays as it is. Systems that cannot say no.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)


def buffer_source(buffer: Any, name: str) -> Source:
    """Wrap an object with the buffer protocol."""
    return Source(memoryview(buffer).cast("B").toreadonly(), name)


def _refuse_special(path: PathLike) -> None:
    """Directories and devices are refused before they are opened: opening a pipe would wait for a writer."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise FileAccessError("this is a directory", path=path, hint=_directory_hint(Path(path)))
    if not stat.S_ISREG(mode):
        raise FileAccessError("not a regular file", path=path, hint="Give the path of a .gguf file")


def _directory_hint(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir())
    models = [name for name in names if name.endswith(".gguf")]
    if models:
        return f"Give the path of a file in it: {', '.join(models[:3])}"
    if "config.json" in names:
        return f"It looks like a Hugging Face checkpoint. {GET_GGUF}"
    return "Give the path of a .gguf file"


def _explain(path: PathLike, error: Exception) -> FileAccessError:
    if isinstance(error, FileNotFoundError):
        return MissingFileError("no such file", path=path, hint="Check the spelling and the current folder")
    if isinstance(error, PermissionError):
        return FileAccessError("no permission to read it", path=path, hint="Check the file's owner and permissions")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return FileAccessError(f"cannot be opened: {reason}", path=path)
