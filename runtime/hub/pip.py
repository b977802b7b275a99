"""Wheels from a package index. `pip download` in a child process finds them; `transfer` fetches what can go on later.

pip begins anew after each interruption. Its report (`pip install --dry-run --report`) would name the URL, but before
25.3 pip fetches the whole wheel to write it, so the URL is taken from what pip says as it goes along. Words that are
not understood cost nothing but the resuming: pip then does all of it.
"""

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ...formats.errors import Cancelled
from .. import settings
from . import cache, transfer
from .types import Cancel, DownloadError, Progress

POLL_S = 0.1  # how long a cancel may go unnoticed
RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")

# "@" would be a password, which pip hides: such a wheel is for pip to fetch
FOUND = re.compile(r"\s*Found link (?P<url>https?://[^\s#@?]+/(?P<name>[\w.+-]+\.whl)(?:\?[^\s#]*)?)[\s#]")
FETCHING = re.compile(r"\s*Downloading (?:\S*/)?(?P<name>[\w.+-]+\.whl)(?:\?\S*)?(?: \(|$)")


class PipMissing(DownloadError):
    """This Python has no pip."""


def download(
    requirement: str, folder: Path, *, progress: Progress, stage: str, cancel: Cancel, pip_args: Sequence[str] = ()
) -> None:
    """Put the wheel of `requirement` into `folder`: no dependencies, no source packages (those would run their code).

    pip is stopped when it begins to fetch from a server, and the same URL is fetched in a way that can go on later. pip
    fetches too what it has on this machine, and what only its credentials, certificates or proxies give access to.
    Raises PipMissing, DownloadError with pip's own last words, ResourceError, Cancelled.
    """
    progress(stage, 0, 0)
    words = _Words(progress, stage)
    _run_pip(requirement, folder, words.name_a_url, cancel, pip_args)
    if words.url is None:
        return
    try:
        transfer.fetch(words.url, folder / words.name, progress=progress, stage=stage, cancel=cancel)
    except transfer.Refused:
        _run_pip(requirement, folder, words.are_only_numbers, cancel, pip_args)


@dataclass
class _Words:
    """What pip has said so far. Its methods take one more line, and return True when pip is to stop."""

    progress: Progress
    stage: str
    url: str | None = None  # what it began to fetch
    name: str = ""
    links: dict[str, str] = field(default_factory=dict)  # file name to URL

    def name_a_url(self, line: str) -> bool:
        """Stop pip as soon as it has said what it fetches from where."""
        self.are_only_numbers(line)
        if found := FOUND.match(line):
            self.links.setdefault(found["name"], found["url"])
        elif fetching := FETCHING.match(line):
            self.name = fetching["name"]
            self.url = self.links.get(self.name)
        return self.url is not None

    def are_only_numbers(self, line: str) -> bool:
        """Report how far pip is, and let it go on."""
        if match := RAW_PROGRESS.match(line):
            self.progress(self.stage, int(match[1]), int(match[2]))
        return False


def _run_pip(
    requirement: str, folder: Path, stop_after: Callable[[str], bool], cancel: Cancel, pip_args: Sequence[str]
) -> None:
    """`pip download` into `folder`, or until a line after which it is to stop."""
    if not sys.executable or getattr(sys, "frozen", False):
        raise PipMissing(
            f"a frozen program cannot run pip; fetch {requirement} elsewhere and give the path of its file"
        )
    # pip writes into a folder of our own: two processes never share one, and a wheel appears complete or not at all
    own = cache.make_folder(cache.temporary_name(folder / "pip"))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--only-binary=:all:"]
    command += ["-vv"]  # names the URLs
    command += ["--disable-pip-version-check", "--retries", "1", "--progress-bar", _progress_bar()]
    command += ["--dest", str(own), *pip_args, requirement]
    try:
        code, errors = _run(command, own, stop_after, cancel)
        if code:
            raise _failure(requirement, code, errors)
        for wheel in own.glob("*.whl"):
            os.replace(wheel, folder / wheel.name)
    except OSError as error:
        raise DownloadError(f"cannot run pip for {requirement}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _run(command: Sequence[str], scratch: Path, stop_after: Callable[[str], bool], cancel: Cancel) -> tuple[int, str]:
    """Exit code and captured stderr of `command`; 0 when it was stopped after a line of its stdout.

    The child never outlives this call; what it leaves in its temporary folder is in `scratch`.
    """
    # PIP_REQUIRE_VIRTUALENV would refuse although nothing is installed; an old pip dies of its own warnings as errors
    environment = settings.child_environment(
        PIP_REQUIRE_VIRTUALENV="0",
        PIP_QUIET="0",
        PYTHONUNBUFFERED="1",
        PYTHONIOENCODING="utf-8",
        PYTHONWARNINGS="ignore",
        TMPDIR=str(scratch),
        TEMP=str(scratch),
        TMP=str(scratch),
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
                    raise Cancelled("the download was stopped")
                with contextlib.suppress(queue.Empty):
                    line = lines.get(timeout=POLL_S)
                    if line is None:
                        break
                    if stop_after(line):
                        return 0, ""
            code = child.wait()
            readers[1].join()
            return code, "".join(errors)
        finally:
            if child.poll() is None:
                child.kill()
            for reader in readers:
                reader.join(1)  # before its stream is closed


def _forward(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


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
