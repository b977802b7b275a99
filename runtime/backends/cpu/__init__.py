"""The CPU backend. What a step goes through, in order:

    lower.py     graph nodes -> kernel calls            kernels/   what they do, in Numba
    compile.py   missing kernels, in child processes    simd/      vectors, for any instruction set
    objects.py   the cache of object files, loading     jit.py     the one file that asks Numba
    executor.py  memory, the table of calls, a step     features.py  what this CPU has
    team.py      threads that walk the table together   args.py    what a kernel is given
"""

from __future__ import annotations

from .backend import CPUBackend, describe

__all__ = ["CPUBackend", "describe"]
