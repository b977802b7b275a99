"""Launches that were recorded once and go out together: there are hundreds for a token, and each costs the host time.

A step of generated tokens has the same launches as the one before it: where its tokens are stands in device memory, so
what was recorded for one is right for all. They are recorded when they come the second time, since the first time
compiles kernels. Where recording fails they are launched one by one, as in the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .now import Now
from .package import SIMULATED

MOST = 16  # recordings that are kept: steps of so many different numbers of tokens
Launches = Callable[[], None]


class Recorder:
    """The recordings of one program on one stream."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._seen = stream, set[Now]()
        self._recorded: dict[Now, Launches] = {}
        self.failure = "not in the simulator" if SIMULATED else ""  # why launches go one by one

    def run(self, now: Now, launches: Launches) -> None:
        """Launch, by a recording if there is one."""
        if self.failure or (len(self._recorded) >= MOST and now not in self._recorded):
            launches()
        elif now in self._recorded:
            self._recorded[now]()
        elif now in self._seen:
            self._record(now, launches)
        else:
            self._seen.add(now)
            launches()

    def _record(self, now: Now, launches: Launches) -> None:
        try:
            self._recorded[now] = recording(self._stream, launches)
        except Exception as error:  # a package or a driver that cannot: slower, and as right
            self.failure = f"{type(error).__name__}: {error}"
            launches()
        else:
            self._recorded[now]()


def recording(stream: Any, launches: Launches) -> Launches:
    from cuda.bindings import driver

    handle = driver.CUstream(int(stream))
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    _checked(driver.cuStreamBeginCapture(handle, mode))
    try:
        launches()
    finally:
        captured = driver.cuStreamEndCapture(handle)
    graph = _checked(captured)
    instance = _checked(driver.cuGraphInstantiate(graph, 0))
    _checked(driver.cuGraphDestroy(graph))
    return lambda: _checked(driver.cuGraphLaunch(instance, handle))


def _checked(result: tuple[Any, ...]) -> Any:
    code, *values = result
    if int(code) != 0:
        raise RuntimeError(f"the driver says {code.name}")
    return values[0] if values else None
