"""Work that can be stopped and gone on with: SIGTERM stops it as Ctrl-C does, and the person learns how it goes on."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from ..formats.errors import Cancelled, ResourceError
from . import console
from .progress import ProgressLine


class Terminated(BaseException):
    """SIGTERM arrived. No Exception, like KeyboardInterrupt: nothing but the way out should answer it."""


@contextlib.contextmanager
def resumable(target: Path, progress: ProgressLine) -> Iterator[None]:
    """Writing a model to `target`: if it stops and what is done stays, say with which command it goes on."""
    try:
        with _terminable():
            yield
    except (KeyboardInterrupt, Terminated, Cancelled, ResourceError):
        from ..formats.gguf.resume import left_behind  # NumPy, which the command has imported by now

        progress.clear()
        if (partial := left_behind(target)) is not None:
            console.note(f"what is done stays in {partial}; this goes on with it:\n  {_same_command()}")
        raise


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises Terminated in the main thread."""
    if threading.current_thread() is not threading.main_thread():  # a test, or a program that calls the command
        yield
        return

    def stop(*_: object) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _same_command() -> str:
    return shlex.join(["halfbyte", *sys.argv[1:]])
