"""Programs that want a processor all the time, as a browser or a compiler beside the model does."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType

_BUSY = "while True: pass"


class Neighbours:
    """`count` busy programs, from entering to leaving. They may run on any processor, as programs do."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Neighbours:
        self._running = [subprocess.Popen([sys.executable, "-S", "-c", _BUSY]) for _ in range(self._count)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for program in self._running:
            program.kill()
            program.wait()
