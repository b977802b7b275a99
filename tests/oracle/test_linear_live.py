"""The libraries themselves, where they are installed: they say what was recorded, and so they do of other weights."""

from __future__ import annotations

import numpy as np
import pytest

from ..fixtures.make.linear import PEERS, weights
from .test_linear import CASES, FIXTURE, check

MODULES = {"quanto": "optimum.quanto"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", PEERS)
def test_libraries(peer: str) -> None:
    pytest.importorskip(MODULES.get(peer, peer), reason=f"{peer} is not installed; the fixture is checked without it")
    for name, array in PEERS[peer](FIXTURE["weights"]).items():
        np.testing.assert_array_equal(array, FIXTURE[name], name)
    for seed in range(4, 8):
        w = weights(seed)
        found = PEERS[peer](w)
        for case in (case for case in CASES if case.startswith(f"{peer}/")):
            check(case, found, w)
