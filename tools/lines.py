"""Where `halfbyte chat` reads its lines from: a person at a terminal, or a pipe."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator

from ..formats.errors import HalfbyteError
from . import console

PROMPT, CONTINUED = "> ", ". "
_ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as "surrogateescape" has them


class LineReader:
    """Reads whole messages. `is_interactive` tells whether a person is typing."""

    def __init__(self) -> None:
        self._n_read = 0  # lines of a pipe
        self.is_interactive = console.is_terminal(sys.stdin)
        reconfigure = getattr(sys.stdin, "reconfigure", None)
        if reconfigure is not None:
            # A pipe is UTF-8 everywhere; a terminal says what it is. What else a pipe holds is found line by line:
            # Python decodes many at once, and those before are to be answered.
            if self.is_interactive:
                reconfigure(errors="replace")
            else:
                reconfigure(encoding="utf-8-sig", errors="surrogateescape")
        if self.is_interactive:
            with contextlib.suppress(ImportError):  # line editing and history, where the platform has them
                import readline  # noqa: F401

    def read(self) -> str:
        """The next message: one line, or several joined where a line ends in a backslash.

        Raises EOFError at the end of the input, KeyboardInterrupt for Ctrl-C at the prompt, and HalfbyteError for a
        line from a pipe that is not UTF-8.
        """
        lines = list(self._lines())
        if not lines:
            raise EOFError
        return "\n".join(lines).strip()

    def _lines(self) -> Iterator[str]:
        prompt = PROMPT
        while True:
            try:
                line = self._line(prompt)
            except EOFError:
                return
            yield line.removesuffix("\\")
            if not line.endswith("\\"):
                return
            prompt = CONTINUED

    def _line(self, prompt: str) -> str:
        if self.is_interactive:
            if not console.is_terminal(sys.stdout):  # the answers go to a file, the prompt must not
                console.note_inline(prompt)
                prompt = ""
            return input(prompt)
        line = sys.stdin.readline() if sys.stdin is not None else ""
        if not line:
            raise EOFError
        self._n_read += 1
        if not line.isascii() and _ESCAPED.search(line):
            raise HalfbyteError(f"standard input is not UTF-8 text (line {self._n_read:,}); convert it first")
        return line.rstrip("\r\n")
