"""One process fetches a model, the others wait for it. The operating system releases the lock when its owner dies."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ...formats.errors import Cancelled
from . import cache
from .types import Cancel

POLL_S = 0.1

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextlib.contextmanager
def exclusive(path: Path, cancel: Cancel) -> Iterator[None]:
    """Hold the lock file `path` while the body runs. Raises Cancelled while waiting, ResourceError (no such file).

    Where the file system knows no locks the body runs without one: that may spoil a download, which is then noticed and
    begun anew, never a model.
    """
    try:
        file = open(path, "ab")  # noqa: SIM115  # only the opening may fail with this error, not the body
    except OSError as error:
        raise cache.cannot_write(path.parent, error) from error
    with file:
        try:
            while not _try_lock(file):
                if cancel:
                    raise Cancelled("stopped while another process downloads the same model")
                time.sleep(POLL_S)
        except OSError:
            pass
        yield  # closing the file releases the lock
