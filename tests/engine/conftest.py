from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from halfbyte.runtime.engine.engine import Engine

from .fakes import FakeExecutor


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Engine]]:
    """Makes engines on fake executors and closes them; every page must have come back by then."""
    engines: list[Engine] = []

    def make(**options: float) -> Engine:
        engines.append(Engine(FakeExecutor(**options)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
