"""What the fetchers have in common: how to report progress, when to stop, and how to fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ...formats.errors import HalfbyteError

Progress = Callable[[str, int, int], None]  # stage, done, total (bytes; total 0: not known)


class SupportsBool(Protocol):
    """Anything that turns true when the work should stop: `CancelFlag`, for one."""

    def __bool__(self) -> bool: ...


Cancel = SupportsBool | None


class DownloadError(HalfbyteError):
    """A source could not deliver; the message says why in one line."""


def no_progress(stage: str, done: int, total: int) -> None:
    """The default progress callback."""
