"""A disk that fails, or a process that dies, at a chosen call: every call that changes files is counted."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any
from unittest import mock

CALLS = ("open", "ftruncate", "posix_fallocate", "write", "fsync", "replace")


class Disk:
    """While it is entered, call number `at` does `act` before anything else; `calls` are the names of all so far.

    torn: of a write that is call number `at`, the first half reaches the file.
    """

    def __init__(self, at: int = -1, act: Callable[[], None] = lambda: None, *, torn: bool = False) -> None:
        self._at, self._act, self._torn = at, act, torn
        self.calls: list[str] = []

    def __enter__(self) -> Disk:
        names = [name for name in CALLS if hasattr(os, name)]
        self._patches = [mock.patch.object(os, name, self._counted(name, getattr(os, name))) for name in names]
        real = os.fdopen
        self._patches.append(mock.patch.object(os, "fdopen", lambda *a, **k: _File(real(*a, **k), self)))
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for patch in self._patches:
            patch.stop()

    def step(self, name: str, half: Callable[[], object] = lambda: None) -> None:
        self.calls.append(name)
        if len(self.calls) - 1 == self._at:
            if self._torn:
                half()
            self._act()

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            torn = (lambda: real(args[0], args[1][: len(args[1]) // 2])) if name == "write" else (lambda: None)
            self.step(name, torn)
            return real(*args, **kwargs)

        return call


class _File:
    """The buffered file that `os.fdopen` gives."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def write(self, data: Any) -> int:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._disk.step("write", half)
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def fail(code: int) -> Callable[[], None]:
    """What a call does that fails."""

    def act() -> None:
        raise OSError(code, os.strerror(code))

    return act
