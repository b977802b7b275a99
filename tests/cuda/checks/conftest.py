"""The checks run on a GPU, or in Numba's simulator where NUMBA_ENABLE_CUDASIM=1 says so before Numba is imported."""

from __future__ import annotations

from halfbyte.runtime.backends.cuda.package import SIMULATED

if SIMULATED:
    from .. import simulator

    simulator.install()
