"""Kernels that do several ops at once, against the kernels of those ops and against float64 arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.runtime.backends.cpu.args import GATED_SCRATCH_BYTES
from halfbyte.runtime.ops import OPS
from numpy.typing import NDArray

from tests.builders_quants import random_blocks
from tests.kernel_harness import call
from tests.oracle.test_kernels_linear import (
    FLOATS,
    QUANTIZED,
    as_multiplied,
    columns,
    empty_packets,
    in_packets,
    seen_in,
    tolerance,
)


def rows_of(x: np.ndarray, name: str, weight: np.ndarray, bias: np.ndarray, nth: int) -> NDArray[np.float32]:
    """The product by linear_rows."""
    kind, out = GGMLType[name], np.full((len(x), len(weight)), np.nan, np.float32)
    operand = {"x": x if name in FLOATS else in_packets(x)}
    call(
        f"linear_rows.{name}", nth=nth, tokens=len(x), w=weight, row_bytes=kind.row_bytes(x.shape[1]), n=len(weight),
        out=out, bias=bias, cols=x.shape[1], repeat=1, limit=len(x), **operand,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("name", [*QUANTIZED, *FLOATS])
def test_gate_up_and_activation(name: str) -> None:
    kind, rng = GGMLType[name], np.random.default_rng(len(name))
    for cols in columns(kind) if name in QUANTIZED else [1, 31, 2134]:
        for n, tokens, nth in ((1, 1, 1), (37, 7, 3), (64, 1, 2), (96, 9, 2)):
            gate, up = (random_blocks(kind, (n, cols), rng) for _ in range(2))
            gate_bias, up_bias = rng.standard_normal((2, n)).astype(np.float32)
            x = rng.standard_normal((tokens, cols)).astype(np.float32)
            operand = {"x": x if name in FLOATS else in_packets(x)}
            seen = x.astype(np.float64) if name in FLOATS else seen_in(operand["x"], cols)
            out = np.full((tokens, n), np.nan, np.float32)
            made = empty_packets(tokens, n) if n % 32 == 0 else None
            arguments = {
                "gate": gate, "up": up, "gate_bias": gate_bias, "up_bias": up_bias, "row_bytes": kind.row_bytes(cols),
                "n": n, "cols": cols, "repeat": 1, **operand,
            }  # fmt: skip
            packets = 0 if made is None else made
            size = {"nth": nth, "tokens": tokens, "scratch": GATED_SCRATCH_BYTES}
            call(f"linear_glu.{name}.silu", **size, **arguments, out=out, packets=packets)
            parts, errors = [], []
            for weight, bias in ((gate, gate_bias), (up, up_bias)):
                matrix = as_multiplied(weight, kind)
                parts.append(seen @ matrix.T + bias)
                errors.append(tolerance("linear_rows", name) * (np.abs(seen) @ np.abs(matrix).T + np.abs(bias) + 1e-3))
            expected = OPS["glu"].reference(*parts, act="silu")
            # silu changes at most 1.1 times as fast as its argument, and is no larger than it.
            bound = 1.2 * errors[0] * (np.abs(parts[1]) + errors[1]) + np.abs(parts[0]) * errors[1] + errors[0]
            assert (np.abs(out - expected) <= bound + 1e-6 * np.abs(expected)).all(), (name, cols, n)
            unfused = np.full((tokens, n), np.nan, np.float32)
            both = [rows_of(x, name, w, b, nth) for w, b in ((gate, gate_bias), (up, up_bias))]
            call("glu.silu", nth=nth, tokens=tokens, gate=both[0], up=both[1], out=unfused, cols=n, repeat=1)
            assert np.array_equal(out, unfused), "the same bits as three kernels"
            if made is not None:
                assert np.array_equal(made, in_packets(unfused))
                alone = empty_packets(tokens, n)
                call(f"linear_glu.{name}.silu", **size, **arguments, out=0, packets=alone)
                assert np.array_equal(alone, made)


@pytest.mark.parametrize("has_weight", [True, False])
def test_norm_and_int8(has_weight: bool) -> None:
    rng = np.random.default_rng(6)
    for cols, tokens, nth in ((32, 1, 1), (96, 7, 3), (320, 5, 2), (576, 1, 4)):
        x = rng.standard_normal((tokens, cols)).astype(np.float32) * np.float32(3.0)
        weight = rng.uniform(0.5, 1.5, cols).astype(np.float32) if has_weight else 0
        shape = {"x": x, "weight": weight, "eps": 1e-3, "cols": cols, "repeat": 1}
        expected, out = (np.full((tokens, cols), np.nan, np.float32) for _ in range(2))
        call("rms_norm", nth=nth, tokens=tokens, out=expected, heads=1, **shape)
        made = empty_packets(tokens, cols)
        call("rms_norm_quantize", nth=nth, tokens=tokens, out=out, **shape, packets=made)
        assert np.array_equal(out, expected), "the same bits as two kernels"
        assert np.array_equal(made, in_packets(expected))
        alone = empty_packets(tokens, cols)
        call("rms_norm_quantize", nth=nth, tokens=tokens, out=0, **shape, packets=alone)
        assert np.array_equal(alone, made)
