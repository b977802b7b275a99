"""Names that a checkpoint gives its files, and the files they may mean.

A name out of a file is hostile: it may climb out of the folder, be absolute, or be a link to somewhere else. The one
link that is fine is that of the hub's own cache, where snapshots/REVISION/NAME points to a blob two folders up.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...formats.errors import ModelFileError

MAX_NAME, MAX_PART = 1024, 255  # characters of all, bytes of what no system takes more of between two "/"


class CheckpointError(ModelFileError):
    """A Hugging Face folder is incomplete, contradicts itself, or names files that are not its own."""


def file_of(folder: Path, name: object, *, said_in: str) -> Path:
    """The path of a file by its name relative to the folder, whether or not it exists.

    `said_in` is where the name comes from, for the error. Raises CheckpointError before anything is opened.
    """
    if not isinstance(name, str) or not _is_plain(name):
        raise CheckpointError(
            "a file name that leads out of the folder, or is none", path=folder, field=said_in, got=name,
            allowed="names relative to the folder, without '..'",
        )  # fmt: skip
    path = folder / name
    target = Path(os.path.realpath(path))
    if not any(target.is_relative_to(place) for place in _places(folder)):
        raise CheckpointError(
            f"{name} is a link to a file outside of the folder", path=folder, field=said_in, got=str(target),
            hint="Put the file itself into the folder",
        )  # fmt: skip
    return path


def _is_plain(name: str) -> bool:
    """A relative path on every system: no drive, no share, no backslash, nothing that climbs or hides."""
    if not name or len(name) > MAX_NAME or re.search(r"[\x00-\x1f\\:]", name) or name.startswith("/"):
        return False
    return all(part not in ("", ".", "..") and len(os.fsencode(part)) <= MAX_PART for part in name.split("/"))


def _places(folder: Path) -> list[Path]:
    """Where files of the folder may lie: in it, and for a snapshot of the hub's cache among that model's blobs."""
    here = Path(os.path.realpath(folder))
    places = [here]
    if here.parent.name == "snapshots":
        places.append(here.parent.parent / "blobs")
    return places
