"""Numba's CUDA simulator, with threads that wait for each other instead of being asked again and again, and that agree
about shared memory.

The simulator starts a Python thread for each thread of a block, and its own thread polls them all for who has come to
`syncthreads`, which takes the time that they would have. Here they meet at a barrier. All threads
of a block must come to it equally often, which is what CUDA asks for, too.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np


def install() -> None:
    """For this process, which must have been started with NUMBA_ENABLE_CUDASIM=1."""
    from numba.cuda.simulator import kernel, kernelapi

    def run(self: Any, grid_point: tuple[int, ...], *args: Any) -> None:
        points = list(np.ndindex(*self._block_dim))
        self.barrier = threading.Barrier(len(points))

        def body() -> None:
            try:
                self._f(*args)
            except BaseException:
                self.barrier.abort()  # or the others would wait for ever
                raise

        threads = [kernel.BlockThread(body, self, grid_point, point, self._debug) for point in points]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        failed = [thread.exception for thread in threads if thread.exception is not None]
        failed.sort(key=lambda exception: "BrokenBarrierError" in str(type(exception[0])))
        if failed:
            raise failed[0][0].with_traceback(failed[0][1])

    lock = threading.Lock()

    def array(self: Any, shape: Any, dtype: Any) -> np.ndarray:
        """As the simulator's: one for each line of a kernel. But two threads that ask for it at the same time get the
        same one, where the simulator's may make two, and results are wrong now and then.
        """
        caller = sys._getframe(1)
        where = caller.f_code.co_filename, caller.f_lineno
        with lock:
            return self._allocations.setdefault(where, np.empty(shape, dtype))

    kernelapi.FakeCUDAShared.array = array
    kernel.BlockManager.run = run
    kernel.BlockThread.syncthreads = lambda self: self._manager.barrier.wait()
