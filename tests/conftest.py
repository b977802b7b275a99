"""What all tests share: one home folder, so that none reads or fills the user's own, and kernels are compiled once."""

from __future__ import annotations

import os
import signal

import pytest

from . import switches


def pytest_configure(config: pytest.Config) -> None:
    """Before any test imports Halfbyte. The folder is kept in pytest's cache: `--cache-clear` starts from nothing."""
    os.environ["HALFBYTE_HOME"] = str(config.cache.mkdir("halfbyte-home"))
    # A runner in the background may ignore Ctrl-C, and the programs that tests start and interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if (name := switches.backend()) != "cpu":
        from halfbyte import Model

        Model.load.__func__.__kwdefaults__["backend"] = name
