"""A progress line on stderr: only when a person is looking, rewritten in place, gone when the work is done.

It needs no terminal control but the carriage return, so it works in every console, and there is nothing to switch off.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable

import click

from .console import is_terminal, on_screen
from .escape import one_line

REDRAW_S = 0.1
WIDTH = 24  # characters of the bar
STAGES = {
    "compile": "compiling kernels, first run only", "reading": "reading the model", "resume": "checking what is there",
    "check": "comparing with the source",
}  # fmt: skip


class ProgressLine:
    """A callback (stage, done, total) that draws. Use as a context manager: leaving clears the line."""

    def __init__(self, *, enabled: bool | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.enabled = is_terminal(sys.stderr) if enabled is None else enabled
        self._clock = clock
        self._stage, self._started, self._drawn = "", 0.0, -REDRAW_S
        self._length = 0  # of the text that is on the screen now

    def __enter__(self) -> ProgressLine:
        on_screen.append(self.clear)
        return self

    def __exit__(self, *_: object) -> None:
        on_screen.remove(self.clear)
        self.clear()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not self.enabled:
            return
        now = self._clock()
        if stage != self._stage:
            self._stage, self._started, self._drawn = stage, now, now - REDRAW_S
        if now - self._drawn >= REDRAW_S or done == total:
            self._drawn = now
            columns = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be rewritten
            self._draw(describe(stage, done, total, now - self._started)[:columns])

    def clear(self) -> None:
        """Remove the line, so that what comes next starts at the left edge."""
        if self._length:
            self._draw("")
            click.echo("\r", err=True, nl=False)

    def _draw(self, text: str) -> None:
        click.echo("\r" + text.ljust(self._length), err=True, nl=False)
        sys.stderr.flush()
        self._length = len(text)


def describe(stage: str, done: int, total: int, seconds: float) -> str:
    """The text of the line. Totals above a million are bytes, smaller ones are counts. Total 0: not known yet."""
    name = one_line(STAGES.get(stage, stage), 40)
    if total <= 0:
        return f"{name} ..."
    part = min(max(done / total, 0.0), 1.0)
    bar = ("#" * round(part * WIDTH)).ljust(WIDTH, ".")
    amount = f"{done / 1e6:.1f}/{total / 1e6:.1f} MB" if total > 1_000_000 else f"{done}/{total}"
    left = f" {seconds / part - seconds:.0f} s left" if part > 0 and seconds > 2 and part < 1 else ""
    return f"{name} [{bar}] {amount}{left}"
