"""Write a file so that its name holds the old content or the complete new content, whatever happens.

    NAME.partial is created and locked -> written -> fsync -> renamed to NAME -> fsync of the folder

The lock goes away with the process, so a `.partial` left by a crash is taken over, and one in use is not.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import ResourceError
from .cursor import PathLike
from .errors import WriteError

_NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_REPLACE_TRIES = 5  # virus scanners on Windows hold fresh files for a moment

if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        os.lseek(fd, 1 << 62, os.SEEK_SET)  # beyond every write: Windows locks are mandatory
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            # Some network file systems have no locks: go on without.


class DurableFile:
    """`write`, then `seal` and `publish`; or `discard`, which leaves no trace."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".partial")
        self.written = 0
        with translate_errors(self.path):
            self._fd = _create(self.partial)
            self._file = os.fdopen(self._fd, "wb", buffering=1 << 20)

    def write(self, data: bytes | memoryview) -> None:
        with translate_errors(self.path):
            self._file.write(data)
        self.written += len(data)

    def seal(self) -> None:
        """Bring everything written to the disk."""
        with translate_errors(self.path):
            self._file.flush()
            os.fsync(self._fd)

    def publish(self) -> None:
        """Give the sealed file its name. When the system refuses, the complete partial file stays."""
        with translate_errors(self.path):
            self._file.close()  # Windows renames closed files only
            _replace(self.partial, self.path)
            _sync_folder(self.path.parent)

    def close(self) -> None:
        """Close and leave the partial file as it is."""
        with suppress(OSError):
            self._file.close()

    def discard(self) -> None:
        """Close and remove the partial file; the target is untouched."""
        self.close()
        with suppress(OSError):
            self.partial.unlink()


def check_free_space(path: PathLike, needed: int) -> None:
    """Raise ResourceError unless the folder of `path` has room for `needed` bytes and 1 %."""
    folder = Path(path).absolute().parent
    if Path(path).is_dir():
        raise WriteError(f"{path} is a directory; give the name of a file")
    with translate_errors(path):
        free = shutil.disk_usage(folder).free
    if needed + needed // 100 > free:
        raise ResourceError(f"{path}: {needed:,} bytes are needed, {free:,} are free in {folder}; make room or choose "
                            "another folder")  # fmt: skip


@contextmanager
def translate_errors(path: PathLike) -> Iterator[None]:
    """OSError -> ResourceError for a full disk, WriteError for the rest."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise ResourceError(f"{path}: the disk is full; make room or choose another folder") from error
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error


def _create(partial: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    fd = os.open(partial, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        try:
            _lock(fd)
        except OSError:
            raise WriteError(f"{partial} is being written by another process; wait for it or stop it") from None
        # Between open and lock its owner may have published or removed it: then this is no longer the named file.
        if not os.path.samestat(os.fstat(fd), os.stat(partial)):
            raise WriteError(f"{partial} was finished by another process just now; try again")
        os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _replace(partial: Path, path: Path) -> None:
    for attempt in range(_REPLACE_TRIES):
        try:
            os.replace(partial, path)
            return
        except OSError as error:
            busy = isinstance(error, PermissionError) and sys.platform == "win32"
            if not busy or attempt == _REPLACE_TRIES - 1:
                raise WriteError(
                    f"{path} cannot be replaced: {error.strerror}. Close the programs that use it; "
                    f"the complete new file is {partial}"
                ) from error
            time.sleep(0.1 * 2**attempt)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable. Windows has no such call: NTFS journals renames."""
    if sys.platform == "win32":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        # Some file systems cannot sync folders (EINVAL); the rename has happened all the same.
        with suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)
