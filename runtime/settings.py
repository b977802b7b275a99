"""Every environment variable Halfbyte reads, and the folders they choose. No other module looks at the environment.

    HALFBYTE_HOME     folder for downloaded models and compiled kernels (default: the platform's user cache folder)
    XDG_CACHE_HOME    Linux: parent of that folder (default ~/.cache)
    LOCALAPPDATA      Windows: parent of that folder (default ~/AppData/Local)
    NUMBA_CPU_NAME, NUMBA_CPU_FEATURES, NUMBA_BOUNDSCHECK
                      Numba's own: compile the kernels for another CPU, or with array bounds checks
    NUMBA_ENABLE_CUDASIM
                      Numba's own, too: CUDA kernels run as Python functions
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def home() -> Path:
    """The folder Halfbyte writes to. It is not created here and may not be writable."""
    if chosen := os.environ.get("HALFBYTE_HOME"):
        return Path(chosen).expanduser().absolute()
    return _user_cache() / "halfbyte"


def models_dir() -> Path:
    """Where downloaded models live, under their own file names."""
    return home() / "models"


def downloads_dir() -> Path:
    """Where unfinished downloads live; emptied for a model once its file is verified."""
    return home() / "downloads"


def forced_cpu() -> tuple[str | None, str | None]:
    """CPU name and feature string that Numba is told to compile for, None where it is free to choose."""
    return os.environ.get("NUMBA_CPU_NAME") or None, os.environ.get("NUMBA_CPU_FEATURES")


def bounds_checked() -> bool:
    """True when kernels are to be compiled with array bounds checks (for tests)."""
    return os.environ.get("NUMBA_BOUNDSCHECK", "0") not in ("", "0")


def cuda_simulated() -> bool:
    """True when CUDA kernels are to run in Numba's simulator (for tests)."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def child_environment(**changes: str) -> dict[str, str]:
    """A copy of this process's environment with `changes`, for a child process."""
    return {**os.environ, **changes}


def compiler_environment(**changes: str) -> dict[str, str]:
    """The same for a child that compiles: what else Numba is told in this program (to compile nothing, to print what it
    does) is not for kernels.
    """
    ours = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_BOUNDSCHECK")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_") or name in ours}
    return {**kept, **changes}


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _user_home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return _user_home() / "Library" / "Caches"
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG rule: a relative path there is to be ignored
    return Path(chosen) if os.path.isabs(chosen) else _user_home() / ".cache"


def _user_home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME and no password entry: a bare container
        return Path(os.path.abspath(os.sep))
