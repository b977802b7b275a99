"""What one render may cost, and the meter that holds it to that.

A template comes out of a model file, so it is somebody else's program. A thread with a timeout cannot stop it (Python
threads cannot be killed) and a signal works only on the main thread of POSIX. So the compiled template pays as it goes:

* fuel: every statement, loop item, call and string operation takes units *before* it runs. The count depends only on
  the template and its input, so a render that passes here passes on every machine.
* CPU time of this thread, looked at every few thousand units: a backstop for slow machines. Waiting for the processor
  does not count, so a busy laptop does not refuse good templates.
* memory: bytes of all strings and lists made, checked before they are made. Only what is known to die is given back
  (`Guard.assign`), so the count is an upper bound of what is alive.
* output: characters, counted while they are produced.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from ...formats.errors import TemplateError

_CLOCK_EVERY = 4096  # fuel between two looks at the clock: about 1 ms apart, and the look costs 0.3 us


@dataclass(frozen=True)
class Limits:
    """Limits of a render for a small conversation; `for_input` adds what a long one needs.

    Over the public templates in tests/fixtures the dearest render of a conversation with tools takes 10,000 fuel,
    1.4 ms and 0.1 MB, so the defaults leave a factor of 40 and more.
    """

    fuel: int = 400_000  # 60-200 ms of the densest loops
    cpu_seconds: float = 0.18  # leaves room for the last operation inside the promised 250 ms
    memory_bytes: int = 24 << 20  # with the objects that fuel alone can make this stays below the promised 64 MB
    output_chars: int = 1 << 20  # 1 MiB: 250,000 tokens, more than most contexts hold
    depth: int = 64  # nested calls; public templates nest 6 deep, Python itself allows about 300
    source_chars: int = 1 << 16  # the largest public template has 17,000 characters

    def for_input(self, nodes: int, chars: int) -> Limits:
        """Limits for a conversation of `nodes` values with `chars` characters: room to visit and copy it many times.

        The square is there because honest templates look back over the conversation at every message (Gemma 4) or build
        their text by appending to it (Reka): 1,000 messages take 300 ms then. At 10 messages it adds nothing.
        """
        square = min(nodes, 10_000) ** 2
        return replace(
            self,
            fuel=self.fuel + 500 * nodes + square // 2 + chars,
            cpu_seconds=self.cpu_seconds + 2e-5 * nodes + 1e-7 * (chars + square),
            memory_bytes=self.memory_bytes + 64 * (chars + 8 * nodes),
            output_chars=self.output_chars + 4 * chars,
        )


DEFAULT_LIMITS = Limits()


class Meter:
    """Counts down one render. Used by one thread; a new one is made for every render."""

    __slots__ = ("_check_at", "_deadline", "depth", "fuel", "limits", "memory", "output")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.fuel = limits.fuel
        self.memory = limits.memory_bytes
        self.output = limits.output_chars
        self.depth = 0
        self._check_at = limits.fuel - _CLOCK_EVERY
        self._deadline = time.thread_time() + limits.cpu_seconds

    def tick(self, units: int) -> None:
        """Pay `units` of work; raises TemplateError when fuel or time is used up."""
        self.fuel -= units
        if self.fuel < self._check_at:
            self._look()

    def scan(self, chars: int) -> None:
        """Pay for a linear pass over `chars` characters (1-5 ns each, so 32 of them are about one unit)."""
        self.tick(1 + (chars >> 5))

    def copy(self, chars: int) -> None:
        """Pay for copying `chars` characters (0.1 ns each)."""
        self.tick(1 + (chars >> 10))

    def require(self, size: int) -> None:
        """Refuse an operation that may make `size` bytes, more than is left. Takes nothing."""
        if size > self.memory:
            raise TemplateError(
                f"the chat template uses more than {self.limits.memory_bytes >> 20} MiB of memory; it was stopped"
            )

    def allocate(self, size: int) -> None:
        """Pay for `size` bytes that are about to be made, or were made within a bound that `require` allowed."""
        self.require(size)
        self.memory -= size

    def text(self, text: str) -> str:
        """Pay for a string made by a bounded operation, and return it."""
        self.allocate(text_bytes(text))
        return text

    def emit(self, chars: int) -> None:
        """Pay for `chars` characters of output."""
        self.output -= chars
        if self.output < 0:
            raise TemplateError(
                f"the chat template writes more than {self.limits.output_chars:,} characters; it was stopped"
            )

    def enter(self) -> None:
        """Go one call deeper; the caller leaves with `depth -= 1`."""
        self.depth += 1
        if self.depth > self.limits.depth:
            raise TemplateError(f"the chat template nests calls more than {self.limits.depth} deep; it was stopped")

    def _look(self) -> None:
        if self.fuel < 0:
            raise TemplateError(f"the chat template takes more than {self.limits.fuel:,} steps; it was stopped")
        self._check_at = self.fuel - _CLOCK_EVERY
        if time.thread_time() > self._deadline:
            raise TemplateError(
                f"the chat template runs for more than {1000 * self.limits.cpu_seconds:.0f} ms; it was stopped"
            )


def text_bytes(text: str) -> int:
    """Bytes of a string object, rounded up: 4 a character unless it is ASCII, and 56 for the object."""
    return 56 + (len(text) if text.isascii() else 4 * len(text))
