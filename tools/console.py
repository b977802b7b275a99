"""All writing of the commands: the answer to stdout, everything else to stderr, and nothing unsafe on either."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import click

from .escape import one_line, visible


def prepare() -> None:
    """Let no console encoding raise: what it cannot show becomes an escape. Show warnings of the library as notes.

    Where a stream was closed by whoever started us (`>&-`), Python would leave None, and the next file opened would get
    its number. stderr leads nowhere from here on. stdout takes nothing: an answer that is lost is an error (EBADF).
    """
    if sys.stdout is None:
        # a Windows program without a console was never meant to show anything
        sys.stdout = _nowhere(os.O_WRONLY if sys.platform == "win32" else os.O_RDONLY)
    if sys.stderr is None:
        sys.stderr = _nowhere(os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a replaced stream (a test, a GUI) may be anything
            reconfigure(errors="backslashreplace")
    logger = logging.getLogger(__package__.partition(".")[0])
    if not logger.handlers:
        logger.addHandler(NoteHandler(logging.WARNING))


def _nowhere(flags: int) -> TextIO:
    # closefd: like Python's own streams they stay for the life of the process, and nothing warns of that at its end
    return open(os.open(os.devnull, flags), "w", encoding="utf-8", closefd=False)


on_screen: list[Callable[[], None]] = []  # what removes lines that are rewritten in place


class NoteHandler(logging.Handler):
    """Warnings of the library, as remarks."""

    def emit(self, record: logging.LogRecord) -> None:
        for clear in on_screen:
            clear()
        note(f"note: {record.getMessage()}")


def say(text: str = "") -> None:
    """One line of the answer."""
    click.echo(visible(text))


def stream(piece: str) -> None:
    """A piece of the answer, shown at once."""
    click.echo(visible(piece), nl=False)
    sys.stdout.flush()


def note(text: str) -> None:
    """A remark for the person at the terminal: never part of the answer."""
    _remark(visible(text))


def note_inline(text: str) -> None:
    """A remark without a line end."""
    _remark(visible(text), nl=False)


def write_json(value: Any, *, indent: int | None = None) -> None:
    """One JSON document. Pure ASCII: exact on every console, and no control character is ever raw.

    Infinities and NaN become null, which every JSON parser accepts.
    """
    click.echo(json.dumps(_finite(value), ensure_ascii=True, indent=indent, allow_nan=False))


def write_table(rows: Sequence[Sequence[str]], *, indent: str = "") -> None:
    """Left-aligned columns; the last one is as long as its text."""
    if not rows:
        return
    cells = [tuple(one_line(cell) for cell in row) for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]) - 1)]
    for row in cells:
        start = "".join(cell.ljust(width) + "  " for cell, width in zip(row, widths, strict=False))
        click.echo((indent + start + row[-1]).rstrip())


def error(text: str) -> None:
    """The one line that explains a failure."""
    _remark(f"error: {one_line(text)}")


def _remark(text: str, *, nl: bool = True) -> None:
    try:
        click.echo(text, err=True, nl=nl)
    except OSError:  # a full disk, or nobody reads it: answer and exit code are what they are without it
        _discard(sys.stderr)


def is_terminal(file: Any) -> bool:
    """Is a person looking at this stream? False for closed and replaced streams."""
    try:
        return bool(file is not None and file.isatty())
    except (ValueError, AttributeError):
        return False


def discard_output() -> None:
    """Nobody reads any more: point the standard streams at nothing, so that the interpreter's last flush is quiet."""
    for file in (sys.stdout, sys.stderr):
        _discard(file)


def _discard(file: TextIO) -> None:
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        pass  # streams without a descriptor have nothing to flush


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
