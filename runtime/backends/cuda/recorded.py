"""Launches that were recorded once and go out together: there are hundreds for a token, and each costs the host time.

A step of generated tokens has the same launches as the one before it: where its tokens are stands in device memory, so
what was recorded for one is right for all. They are recorded when they come the second time, since the first time
compiles kernels. Where recording fails they are launched one by one, as in the simulator, and one warning says so.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from .now import Now
from .package import SIMULATED

MOST = 16  # recordings that are kept, the last used: steps of so many different numbers of tokens
MOST_SEEN = 1024  # kinds of steps that are known to have come once
Launches = Callable[[], None]
_log = logging.getLogger(__name__)


class Recorder:
    """The recordings of one program on one stream. `guard` keeps memory from being given back while one is made."""

    def __init__(self, stream: Any, guard: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self._stream, self._guard, self._seen = stream, guard, set[Now]()
        self._recorded: OrderedDict[Now, Recording] = OrderedDict()
        self.failure = "not in the simulator" if SIMULATED else ""  # why launches go one by one

    def run(self, now: Now, launches: Launches) -> None:
        """Launch, by a recording if there is one."""
        if now in self._recorded:
            self._recorded.move_to_end(now)
            self._recorded[now]()
        elif self.failure or now not in self._seen:
            launches()
            self._saw(now)
        else:
            self._record(now, launches)

    def close(self) -> None:
        """Give recordings back."""
        while self._recorded:
            self._recorded.popitem()[1].close()

    def _saw(self, now: Now) -> None:
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen.add(now)

    def _record(self, now: Now, launches: Launches) -> None:
        try:
            with self._guard():
                made = recording(self._stream, launches)
        except Exception as error:  # a package or a driver that cannot: slower, and as right
            self.failure = f"{type(error).__name__}: {error}"
            _log.warning("launches on the GPU go out one by one, which is slower: recording failed: %s", self.failure)
            launches()
            return
        while len(self._recorded) >= MOST:
            self._recorded.popitem(last=False)[1].close()
        self._recorded[now] = made
        made()


class Recording:
    """Launches as a CUDA graph, on the stream that they were recorded on."""

    def __init__(self, driver: Any, graph: Any, handle: Any) -> None:
        self._driver, self._handle, self._instance = driver, handle, _checked(driver.cuGraphInstantiate(graph, 0))

    def __call__(self) -> None:
        _checked(self._driver.cuGraphLaunch(self._instance, self._handle))

    def close(self) -> None:
        """Give it back; the driver waits until it has run."""
        _checked(self._driver.cuGraphExecDestroy(self._instance))


def recording(stream: Any, launches: Launches) -> Recording:
    """Record launches instead of running them. Raises what the package or the driver does where they cannot."""
    from cuda.bindings import driver

    handle = driver.CUstream(int(stream))
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    _checked(driver.cuStreamBeginCapture(handle, mode))
    try:
        launches()
    finally:
        captured = driver.cuStreamEndCapture(handle)
    graph = _checked(captured)
    try:
        return Recording(driver, graph, handle)
    finally:
        _checked(driver.cuGraphDestroy(graph))


def _checked(result: tuple[Any, ...]) -> Any:
    code, *values = result
    if int(code) != 0:
        raise RuntimeError(f"the driver says {code.name}")
    return values[0] if values else None
