"""One home folder for all tests: nothing reads or fills the user's own cache, and a kernel is compiled once."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Before any test imports Halfbyte. The folder is kept in pytest's cache: `--cache-clear` starts from nothing."""
    os.environ["HALFBYTE_HOME"] = str(config.cache.mkdir("halfbyte-home"))
