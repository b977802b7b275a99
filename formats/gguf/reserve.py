"""Take the disk space of a whole file before its first byte is written: a full disk shows in the first second."""

from __future__ import annotations

import errno
import os
import sys

# What systems answer where a file system cannot reserve: then the check of the free space has to do.
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, getattr(errno, "ENOTSUP", errno.EOPNOTSUPP), errno.ENOTTY}


def reserve(fd: int, size: int) -> None:
    """Give the open file `size` bytes of disk, and that length. What it holds already stays.

    Raises OSError for a full disk (ENOSPC, EDQUOT); does nothing where the file system has no such call.
    """
    if size <= 0:
        return
    try:
        _reserve(fd, size)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


if sys.platform == "win32":
    import ctypes
    import msvcrt

    def _reserve(fd: int, size: int) -> None:
        """Moving the end of the file takes its clusters; `ftruncate` would fill them with zeros as well."""
        end, file_end_of_file_info = ctypes.c_int64(size), 6
        handle = ctypes.c_void_p(msvcrt.get_osfhandle(fd))
        done = ctypes.WinDLL("kernel32", use_last_error=True).SetFileInformationByHandle(
            handle, file_end_of_file_info, ctypes.byref(end), ctypes.sizeof(end)
        )
        if not done:
            raise ctypes.WinError(ctypes.get_last_error())

elif sys.platform == "darwin":
    import fcntl
    import struct

    def _reserve(fd: int, size: int) -> None:
        """struct fstore: flags, position mode, offset, length, bytes that were allocated."""
        preallocate, allocate_all, from_the_end = 42, 4, 3
        missing = size - os.fstat(fd).st_blocks * 512
        if missing > 0:
            fcntl.fcntl(fd, preallocate, struct.pack("=Iiqqq", allocate_all, from_the_end, 0, missing, 0))
        os.ftruncate(fd, size)

else:

    def _reserve(fd: int, size: int) -> None:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)


def allocated(fd: int, size: int) -> int:
    """How many of the `size` bytes that a file will have it has on the disk by now."""
    about = os.fstat(fd)
    if sys.platform == "win32":
        return min(size, about.st_size)
    return min(size, about.st_blocks * 512)
