"""Write a file so that its name holds the old content or the complete new content, whatever happens.

    NAME.partial is created and locked -> space is reserved -> written -> fsync -> renamed to NAME -> folder fsynced

The lock goes away with the process, so a `.partial` left by a crash is taken over, and one in use is not.
A NAME that is a symbolic link stays one: what it points to is replaced. Only regular files are.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import ResourceError
from .cursor import PathLike
from .errors import WriteDenied, WriteError
from .reserve import allocated, reserve

_NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}  # FAT32 has no file above 4 GB
_REPLACE_TRIES = 5  # virus scanners on Windows hold fresh files for a moment
PARTIAL = ".partial"  # behind the name of a file that is being written
_CHUNK = 4 << 20  # bytes read at a time

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
    """`write`, then `seal` and `publish`. Or `close`, which keeps the partial file, or `discard`, which leaves nothing.

    Of a file whose `size` is known, what an earlier run left is there to `read`: `cut` comes before the first write.
    What stands under the name of the partial file must begin with `begins`, or with zeros, to be taken over.
    """

    def __init__(self, path: PathLike, size: int | None = None, *, begins: bytes = b"") -> None:
        self.path = real_target(path)
        self.partial, self.size = partial_of(self.path), size or 0
        self.written = 0
        with translate_errors(self.path):
            self._fd = _create(self.partial)
            self.is_new = not os.fstat(self._fd).st_size
            _require_own(self._fd, self.partial, begins)
        self._file = os.fdopen(self._fd, "wb", buffering=1 << 20)
        if size is None:
            self.cut(0)

    @property
    def missing(self) -> int:
        """Bytes that the file still has to get from the disk."""
        return self.size - allocated(self._fd, self.size)

    def read(self, start: int, n_bytes: int) -> Iterator[bytes]:
        """Bytes that are there, in chunks; fewer where the file ends. Before `start`, or after `seal`."""
        with translate_errors(self.path):
            self._file.seek(start)
            while n_bytes > 0 and (chunk := os.read(self._fd, min(n_bytes, _CHUNK))):
                n_bytes -= len(chunk)
                yield chunk

    def cut(self, offset: int) -> None:
        """Keep the first `offset` bytes: what comes after them is given back, and written next."""
        with translate_errors(self.path):
            os.ftruncate(self._fd, offset)
            self._file.seek(offset)
        self.written = offset

    def reserve(self) -> None:
        """Take the space of the whole file. ResourceError if there is not as much."""
        with translate_errors(self.path, self.missing):
            reserve(self._fd, self.size)

    def write(self, data: bytes | memoryview) -> None:
        with translate_errors(self.path, self.size - self.written):
            self._file.write(data)
        self.written += len(data)

    def flush(self) -> None:
        """Hand everything written to the system: it stays if this process is killed."""
        with translate_errors(self.path, self.size - self.written):
            self._file.flush()

    def sync(self) -> None:
        """Bring what was flushed to the disk."""
        with translate_errors(self.path):
            os.fsync(self._fd)

    def patch(self, offset: int, data: bytes) -> None:
        """Write other bytes in the place of some that are there."""
        self.flush()
        with translate_errors(self.path):
            self._file.seek(offset)
            self._file.write(data)
            self._file.flush()
            self._file.seek(0, os.SEEK_END)

    def seal(self) -> None:
        """Bring everything written to the disk."""
        self.flush()
        self.sync()

    def forget(self) -> None:
        """Let the system forget what it remembers of a sealed file, so that `read` asks the disk, where it can."""
        if sys.platform == "linux":
            with suppress(OSError):
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

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


def write_durably(path: PathLike, data: bytes, *, begins: bytes = b"") -> None:
    """The complete new content under its name, or what was there before; `begins` as for DurableFile."""
    file = DurableFile(path, begins=begins)
    try:
        file.write(data)
        file.seal()
        file.publish()
    except BaseException:
        file.discard()
        raise


def partial_of(path: Path) -> Path:
    """What a file is called while it is written."""
    return path.with_name(path.name + PARTIAL)


def real_target(path: PathLike) -> Path:
    """The file that will be replaced: `path`, or what it links to. WriteError for what is there and is no file."""
    with translate_errors(path):
        target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
        try:
            mode = os.stat(target).st_mode
        except FileNotFoundError:
            return target
    if stat.S_ISDIR(mode):
        raise WriteError(f"{path} is a directory; give the name of a file")
    if not stat.S_ISREG(mode):
        raise WriteError(f"{path} is not a regular file; it cannot be replaced by one")
    return target


def check_free_space(path: PathLike, needed: int) -> None:
    """Raise ResourceError unless the folder of `path` has room for `needed` bytes and 1 %."""
    folder = Path(path).absolute().parent
    with translate_errors(path):
        free = shutil.disk_usage(folder).free
    if needed + needed // 100 > free:
        raise ResourceError(f"{path}: {needed:,} bytes are needed, {free:,} are free in {folder}; make room or choose "
                            "another folder")  # fmt: skip


@contextmanager
def translate_errors(path: PathLike, needed: int = 0) -> Iterator[None]:
    """OSError -> ResourceError for a full disk, with the bytes that are needed; WriteDenied; else WriteError."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            about = _about_space(path, needed)
            raise ResourceError(f"{path}: the disk is full{about}; make room or choose another folder") from error
        is_denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        kind = WriteDenied if is_denied else WriteError
        raise kind(f"{path}: cannot be written: {error.strerror or error}") from error


def _about_space(path: PathLike, needed: int) -> str:
    try:
        free = shutil.disk_usage(Path(path).absolute().parent).free
    except OSError:
        return ""
    return f": {needed:,} more bytes are needed, {free:,} are free" if needed > 0 else f": {free:,} bytes are free"


def create_file(path: Path) -> int:
    """Open a regular file of ours to read and write, or make one. OSError, or WriteError for what is there instead."""
    with suppress(FileNotFoundError):
        _require_regular(path, os.lstat(path))  # a folder or a link; the flag is for one that comes just now
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    try:
        _require_regular(path, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise WriteError(f"{path} is not a regular file; remove it")
    if status.st_nlink > 1:
        raise WriteError(f"{path} has another name (a hard link), whose file would be written over; remove it")


def _require_own(fd: int, path: Path, begins: bytes) -> None:
    """WriteError for a file that no run of ours has left. The file is closed then."""
    os.lseek(fd, 0, os.SEEK_SET)
    found = os.read(fd, len(begins))
    os.lseek(fd, 0, os.SEEK_SET)
    if any(found) and not found.startswith(begins[: len(found)]):
        os.close(fd)
        raise WriteError(f"{path} is where the file is written first, and something else is there; move it away")


def _create(partial: Path) -> int:
    fd = create_file(partial)
    try:
        try:
            _lock(fd)
        except OSError:
            raise WriteError(f"{partial} is being written by another process; wait for it or stop it") from None
        # Between open and lock its owner may have published or removed it: then this is no longer the named file.
        if not os.path.samestat(os.fstat(fd), os.stat(partial)):
            raise WriteError(f"{partial} was finished by another process just now; try again")
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
