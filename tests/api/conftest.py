from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from halfbyte import Model


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    """The model that ships with Halfbyte, on the reference backend."""
    with Model.load("stories260k", backend="reference") as loaded:
        yield loaded


@pytest.fixture(scope="session")
def expected() -> list[dict[str, Any]]:
    """What another implementation says: ids, greedy continuation, logits."""
    path = Path(__file__).parent.parent / "fixtures" / "stories260k_expected.json"
    return json.loads(path.read_text(encoding="utf-8"))
