"""What the fetchers are told: how to report progress and when to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Progress = Callable[[str, int, int], None]  # stage, done, total (bytes; total 0: not known)


class SupportsBool(Protocol):
    """Anything that turns true when the work should stop: `CancelFlag`, for one."""

    def __bool__(self) -> bool: ...


Cancel = SupportsBool | None


def no_progress(stage: str, done: int, total: int) -> None:
    """The default progress callback."""
