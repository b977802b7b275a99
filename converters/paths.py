"""Where results go: checks before files are made. Nothing is computed in vain, and nothing that is read is lost."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..formats.errors import InvalidRequest, ResourceError
from ..formats.gguf.durable import partial_of, real_target, translate_errors
from ..formats.gguf.journal import journal_of


def check_targets(targets: Iterable[Path], sources: Iterable[Path], *, overwrite: bool = True) -> None:
    """InvalidRequest for a target that cannot become a file or is a source; ResourceError where there is no permission.

    With `overwrite` false, nothing may be there yet.
    """
    sources = list(sources)
    for path in targets:
        with translate_errors(path):
            _must_be_a_file(path)
            must_not_be_read(path, sources)
            if not overwrite and path.exists():
                raise InvalidRequest(f"{path} exists; give another --output, or --overwrite")


def _must_be_a_file(path: Path) -> None:
    if str(path) == "-":
        raise InvalidRequest("a model cannot go to standard output: it is written in several places; name a file")
    if path.is_dir():
        raise InvalidRequest(f"{path} is a directory; give the name of a file")
    if path.exists() and not path.is_file():
        raise InvalidRequest(f"{path} is a device or a pipe; models are written to files")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InvalidRequest(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(f"{path}: no permission to write into {folder}; choose another folder")


def must_not_be_read(path: Path, sources: list[Path]) -> None:
    """InvalidRequest where the file is a source, also by another name, or what lies beside it while it is made."""
    partial = partial_of(real_target(path))
    for own in (path, partial, journal_of(partial)):
        if any(own.exists() and source.exists() and own.samefile(source) for source in sources):
            raise InvalidRequest(f"{own} is the file that is read; give the result another name")
