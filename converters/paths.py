"""What is read is never written: a check before a file is made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..formats.errors import InvalidRequest


def must_not_be_read(target: Path, sources: Iterable[Path]) -> None:
    """InvalidRequest if the file that is to be made, or the one it is while it is made, is one of those."""
    for path in (target, target.with_name(f"{target.name}.partial")):
        if any(path.exists() and source.exists() and path.samefile(source) for source in sources):
            raise InvalidRequest(f"{path} is the file that is read; give the result another name")
