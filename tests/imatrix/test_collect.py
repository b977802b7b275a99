"""Sums of squares of what matrices read, against the reference backend's own inputs, for every family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from halfbyte.converters.imatrix import Sums, collect
from halfbyte.formats.errors import Cancelled
from halfbyte.runtime.backends.base import CancelFlag
from halfbyte.runtime.backends.cpu import CPUBackend
from halfbyte.runtime.backends.reference import ReferenceBackend, ReferenceExecutor
from halfbyte.runtime.graph.ir import Node
from halfbyte.runtime.models import ModelSpec

from ..builders import CASES, Case, open_case
from ..models.running import N_PAGES, page_table, step
from ..switches import needs_kernels

pytestmark = needs_kernels
MOST = 16  # tokens of a step, so that a window takes several


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def spec(case: Case, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return open_case(case, tmp_path_factory.mktemp("model"))


class Watched(ReferenceExecutor):
    """The reference, which notes the inputs of products."""

    sums: Sums

    def _apply(self, node: Node, inputs: list[Any], step: Any) -> tuple[Any, ...]:
        name = node.weights["weight"].name.partition("[")[0] if "weight" in node.weights else ""
        if node.op == "linear" and name not in ("output.weight", "token_embd.weight"):
            self._note(name, inputs[0])
        elif node.op == "expert_linear":
            weight, (x, ids) = node.weights["weight"], inputs
            for row, expert in enumerate(ids.reshape(-1)):
                at = row if len(x) == ids.size else row // ids.shape[1]
                self.sums.add(weight.name, x[at : at + 1], int(expert), weight.shape[0])
        return super()._apply(node, inputs, step)

    def _note(self, name: str, x: np.ndarray) -> None:
        if (name, id(x)) not in self.seen:  # parts of one tensor read the same
            self.seen.add((name, id(x)))
            self.kept.append(x)
            self.sums.add(name, x)

    seen: set[tuple[str, int]]
    kept: list[np.ndarray]


def expected(spec: ModelSpec, windows: list[list[int]]) -> Sums:
    plain = ReferenceBackend().compile(spec.graph, n_pages=N_PAGES, max_tokens=64)
    watched = Watched(spec.graph, plain.kv, 64)
    watched.sums, watched.seen, watched.kept = Sums(), set(), []
    for window in windows:
        watched.run(step([(0, 0, window)], page_table(1), range(len(window))))
    return watched.sums


@pytest.fixture(scope="module")
def windows(case: Case) -> list[list[int]]:
    tokens = [int(token) for token in case.tokens()]
    return [tokens[:24], tokens[3:24]]


def test_sums(spec: ModelSpec, windows: list[list[int]]) -> None:
    executor = CPUBackend().compile(spec.graph, n_pages=N_PAGES, max_tokens=MOST, threads=2)
    try:
        found, wanted = collect(executor, windows, Sums()), expected(spec, windows)
    finally:
        executor.close()
    assert set(found.squares) == set(wanted.squares) and found.squares
    assert found.chunks == len(windows)
    for name, squares in wanted.squares.items():
        np.testing.assert_array_equal(found.counts[name], wanted.counts[name], err_msg=name)
        size = np.abs(squares).max()
        assert np.abs(found.squares[name] - squares).max() < 0.05 * size, name  # activations are int8 in between


def test_cancel_leaves_whole_windows(spec: ModelSpec, windows: list[list[int]]) -> None:
    executor = CPUBackend().compile(spec.graph, n_pages=N_PAGES, max_tokens=MOST, threads=2)
    flag, sums = CancelFlag(), Sums()
    try:
        with pytest.raises(Cancelled):
            collect(executor, windows, sums, after=lambda _: flag.set(), cancel=flag)
        once = collect(executor, windows[:1], Sums())
    finally:
        executor.close()
    assert sums.chunks == 1
    for name, squares in once.squares.items():
        np.testing.assert_array_equal(sums.squares[name], squares)
