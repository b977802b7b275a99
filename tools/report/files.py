"""Where a report goes: checked before the work, written at the end, each file complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ...converters.paths import must_not_be_read
from ...formats.errors import InvalidRequest, ResourceError
from ...formats.gguf.durable import translate_errors, write_durably


def check_page(path: Path, sources: Iterable[Path]) -> None:
    """InvalidRequest for a page that would replace something that is no page, or would be in no folder."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InvalidRequest(f"--report {path}: a report is an HTML file; give it a name like report.html")
    if path.is_dir():
        raise InvalidRequest(f"--report {path} is a directory; give the name of a file")
    if not path.absolute().parent.is_dir():
        raise InvalidRequest(f"--report {path}: there is no folder {path.absolute().parent}")
    _check_permission("--report", path, path.absolute().parent)
    must_not_be_read(path, list(sources))


def check_folder(path: Path, sources: Iterable[Path]) -> None:
    """InvalidRequest where the folder for pictures is a file, or a picture might be written over what is no picture."""
    if path.exists() and not path.is_dir():
        raise InvalidRequest(f"--png {path} is a file; give the name of a folder")
    for there in path.glob("*.png*") if path.is_dir() else ():
        must_not_be_read(there, list(sources))
        if there.is_symlink():
            raise InvalidRequest(f"--png {path}: {there.name} is a link, and what it leads to might be written over")
    there = next((one for one in (path.absolute(), *path.absolute().parents) if one.exists()), path)
    _check_permission("--png", path, there)


def _check_permission(option: str, path: Path, folder: Path) -> None:
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(f"{option} {path}: no permission to write into {folder}; choose another folder")


def write(path: Path, data: bytes) -> None:
    """The complete new content under its name, or what was there before."""
    write_durably(path, data, begins=data[:4])


def make_folder(path: Path) -> None:
    with translate_errors(path):
        path.mkdir(parents=True, exist_ok=True)
