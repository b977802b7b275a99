"""The benchmark of single kernels calls them as the executor does: it would not notice by itself if they changed."""

from __future__ import annotations

import pytest

from benchmarks import ahead, kernels


@pytest.mark.parametrize("name", ["Q4_0", "F16"])
def test_products_are_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"FAR_BYTES": 4 << 20, "PROMPT_ROWS": 64, "CACHED_ROWS": 64, "REPEATS": 1, "ENOUGH": 0.0}
    for setting, value in small.items():
        monkeypatch.setattr(kernels, setting, value)
    kernels.compile_all([name], threads=2)
    bench = kernels.Bench(1)
    product = kernels.measure_product([bench], name)
    assert len(product.rows) == len(kernels.TOKENS) and min(*product.rows, *product.far, *product.prompt) > 0
    # Rounding of activations alone: an operand that a kernel does not read, or reads otherwise, is far off.
    assert product.row_error < 0.01 and product.prompt_error < 0.01
    seconds, _ = kernels.measure_attention(bench, kernels.decode_attention(), 1, 40)
    assert seconds > 0


def test_ways_to_ask_ahead_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {name: ahead.WAYS[name] for name in ("2 kB near, 8 kB far", "none")}
    for setting, value in {"FAR_BYTES": 4 << 20, "ROUNDS": 2, "WAYS": ways}.items():
        monkeypatch.setattr(ahead, setting, value)
    kernels.compile_all(["Q4_0"], threads=2)
    found = ahead.measure(kernels.Bench(1), "Q4_0")
    assert found.keys() == ways.keys()
    assert all(runs.median > 0 for runs in found.values())


def test_the_first_way_is_how_codes_are_read() -> None:
    from halfbyte.runtime.backends.cpu.kernels.linear.ahead import OF_CODES

    assert next(iter(ahead.WAYS.values())) == OF_CODES
