"""A 60 Hz clock in a Python thread: what a window needs to stay alive while a model works in the same process."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType

RATE = 60.0  # ticks per second
LATE = 0.05  # seconds: a delay that people notice


@dataclass(frozen=True)
class Ticks:
    """What a ticker saw: the number of ticks, how many came later than LATE, the worst delay in seconds."""

    count: int
    late: int
    worst: float

    @property
    def late_share(self) -> float:
        """Per cent."""
        return 100 * self.late / self.count if self.count else 0.0

    def __add__(self, other: Ticks) -> Ticks:
        return Ticks(self.count + other.count, self.late + other.late, max(self.worst, other.worst))


class Ticker:
    """Ticks while its `with` block runs; then `ticks` holds the result.

    A tick that is due while an earlier one is late counts as late too: each stands for a frame that was not drawn.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._delays: list[float] = []
        self._thread = threading.Thread(target=self._loop, name="ticker", daemon=True)

    @property
    def ticks(self) -> Ticks:
        late = sum(delay > LATE for delay in self._delays)
        return Ticks(len(self._delays), late, max(self._delays, default=0.0))

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        begin, number = time.perf_counter(), 0
        while not self._stop.is_set():
            number += 1
            due = begin + number / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            self._delays.append(time.perf_counter() - due)
