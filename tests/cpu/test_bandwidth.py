"""The benchmark's probe of the memory reads every byte it is told to, in every form."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import bandwidth


@pytest.mark.parametrize("form", bandwidth.FORMS[::3])
def test_every_line_is_read_once(form: tuple[int, int]) -> None:
    probe, streams = bandwidth._compiled(*form)
    lines = 3 * bandwidth.UNROLL  # of each stream
    count = lines * streams * bandwidth.LINE // 8
    memory = np.random.default_rng(7).integers(-(1 << 40), 1 << 40, count + 9)
    start = -memory.ctypes.data % bandwidth.LINE // 8  # the eight bytes at which a line starts
    used = memory[start : start + count]
    assert probe(used.ctypes.data, lines) == used.sum()
    used[count // 2] += 1
    assert probe(used.ctypes.data, lines) == used.sum()


def test_a_measurement_is_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "BUFFER", 1 << 20)
    monkeypatch.setattr(bandwidth, "FORMS", bandwidth.FORMS[:2])
    with bandwidth.Bandwidth(2) as measured:
        assert 1e8 < measured.measure() < 1e13
