"""The model folder: files appear there complete and verified, or not at all.

Every writer uses its own temporary name and renames at the end, so any number of processes may fetch the same model at
once: the last rename wins and all of them hold the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...formats.errors import Cancelled, ModelFileError, ResourceError
from .types import Cancel, Progress

CHUNK = 1 << 20  # bytes between two looks at the cancel flag
ABANDONED_S = 24 * 3600  # a temporary file this old has no living owner


class ChecksumError(ModelFileError):
    """Downloaded bytes are not the expected ones."""


def make_folder(folder: Path) -> Path:
    """Create `folder` (private to the user) or say how to choose another."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def cannot_write(folder: Path, error: OSError) -> ResourceError:
    """The error for a folder of ours that refuses a file."""
    reason = error.strerror or str(error)
    return ResourceError(f"{folder}: cannot write: {reason}. Set HALFBYTE_HOME to a folder you can write to")


def require_space(folder: Path, needed: int) -> None:
    """Refuse before a download what would fail at its end; `needed` in bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(
            f"{folder}: {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free. "
            "Free some space or set HALFBYTE_HOME to a folder on another disk"
        )


def temporary_name(target: Path) -> Path:
    """A name beside `target` that no other process uses."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def remove_abandoned(folder: Path) -> None:
    """Delete temporary files and folders whose writer was killed long ago."""
    with contextlib.suppress(OSError):
        for path in folder.glob(".*.partial"):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def write_verified(
    chunks: Iterable[bytes], target: Path, *, size: int, sha256: str, progress: Progress, stage: str, cancel: Cancel
) -> Path:
    """Write `chunks` to `target`, which appears only when its length and SHA-256 are the expected ones.

    Raises ChecksumError for other bytes, ResourceError when the folder cannot be written, Cancelled on request.
    """
    make_folder(target.parent)
    partial = temporary_name(target)
    try:
        with open(partial, "wb") as out:
            digest, done = hashlib.sha256(), 0
            for chunk in chunks:
                if cancel:
                    raise Cancelled(f"stopped while writing {target.name}")
                done += len(chunk)
                if done > size:
                    raise ChecksumError("more bytes than expected", path=target.name, allowed=f"{size:,}")
                digest.update(chunk)
                out.write(chunk)
                progress(stage, done, size)
            out.flush()
            os.fsync(out.fileno())  # a crash after the rename must not leave a file of zeros
        _compare(target.name, size, sha256, done, digest.hexdigest())
        return _publish(partial, target)
    except OSError as error:
        raise cannot_write(target.parent, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def verify(path: Path, *, size: int, sha256: str, cancel: Cancel = None) -> None:
    """Read the whole file and raise ChecksumError unless it holds exactly the expected bytes."""
    check_bytes(read_chunks(path), str(path), size=size, sha256=sha256, cancel=cancel)


def check_bytes(chunks: Iterable[bytes], name: str, *, size: int, sha256: str, cancel: Cancel = None) -> None:
    """Raise ChecksumError unless `chunks` are exactly the expected bytes; `name` is for the message."""
    digest, done = hashlib.sha256(), 0
    for chunk in chunks:
        if cancel:
            raise Cancelled(f"stopped while checking {name}")
        digest.update(chunk)
        done += len(chunk)
    _compare(name, size, sha256, done, digest.hexdigest())


def read_chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, CHUNK at a time."""
    with open(path, "rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk


def has_size(path: Path, size: int) -> bool:
    """Is there a file of exactly `size` bytes? Enough in the model folder, where only verified files get their name."""
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False


def _compare(name: str, size: int, sha256: str, got_size: int, got_sha256: str) -> None:
    if got_size != size:
        raise ChecksumError("the file has the wrong length", path=name, got=got_size, allowed=str(size))
    if got_sha256 != sha256:
        raise ChecksumError("the file has the wrong SHA-256", path=name, got=got_sha256, allowed=sha256)


def _publish(partial: Path, target: Path) -> Path:
    try:
        os.replace(partial, target)
    except PermissionError:
        # Windows refuses to replace a file that another process has mapped; then the other's copy is complete
        if not has_size(target, partial.stat().st_size):
            raise
    return target
