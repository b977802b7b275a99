"""Whether files are still those that half a result was made of: what a run that was stopped is gone on with, or not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from ..formats.gguf.errors import FileAccessError

_END_BYTES = 1 << 20  # of the beginning, where formats have their headers, and of the end


def identity_of(paths: Iterable[Path]) -> str:
    """Size, time of the last change, and a hash of both ends of each file. FileAccessError if one cannot be read."""
    return ", ".join(_identity(path) for path in paths)


def _identity(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            about = os.fstat(file.fileno())
            found.update(file.read(_END_BYTES))
            file.seek(max(0, about.st_size - _END_BYTES))
            found.update(file.read(_END_BYTES))
    except OSError as error:
        raise FileAccessError(f"cannot be read: {error.strerror or error}", path=path) from error
    return f"{about.st_size} {about.st_mtime_ns} {found.hexdigest()}"
