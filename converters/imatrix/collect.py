"""Run a model over windows of a text, and look at what its matrices read before each of them does."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.backends.base import CancelFlag
from ...runtime.backends.cpu.executor import CPUExecutor
from ...runtime.backends.cpu.lower import Call
from ...runtime.graph.ir import Rows, Value, Weight
from ...runtime.graph.plan import Buffer
from ...runtime.step import PAGE, Step
from .sums import Sums

# Ops that multiply with matrices, and the roles of these.
PRODUCTS = {
    "linear": ("weight",), "linear_add": ("weight",), "linear_glu": ("gate", "up"), "expert_linear": ("weight",),
}  # fmt: skip
HEADS = ("output.weight", "token_embd.weight")  # what may make the logits


def collect(
    executor: CPUExecutor,
    windows: Sequence[Sequence[int]],
    sums: Sums,
    *,
    process_output: bool = False,
    after: Callable[[Sums], None] | None = None,
    cancel: CancelFlag | None = None,
) -> Sums:
    """Add to `sums` what the matrices of an executor's graph are multiplied with, for windows of tokens.

    The matrix that gives the logits is left out unless `process_output`; so is the embedding, which is looked up.
    `after` is called with the sums after each window. Raises Cancelled; sums then hold whole windows only.
    """
    for window in windows:
        added = Sums()
        watcher = _Watcher(executor, added, process_output)
        for start in range(0, len(window), executor.max_tokens):
            watcher.run(_step(window[start : start + executor.max_tokens], start, executor.kv.n_pages), cancel)
        added.chunks = 1
        sums.merge(added)
        if after is not None:
            after(sums)
    return sums


def _step(tokens: Sequence[int], start: int, n_pages: int) -> Step:
    """Some tokens of one sequence. All their logits are wanted: the last layer is computed for no other tokens."""
    n = len(tokens)
    pages = np.arange(-(-(start + n) // PAGE), dtype=np.int32)[None]
    if pages.size > n_pages:
        raise ValueError(f"a window of {start + n} tokens for {n_pages} pages")
    positions = np.arange(start, start + n, dtype=np.int32)
    return Step(np.asarray(tokens, np.int32), positions, np.zeros(n, np.int32), pages, np.arange(n, dtype=np.int32))


class _Watcher:
    """Adds up the inputs of products of one step after the other. An input is looked at once, however many read it."""

    def __init__(self, executor: CPUExecutor, sums: Sums, process_output: bool) -> None:
        self._executor, self._sums = executor, sums
        self._dense: dict[int, set[str]] = {}  # value -> tensors that are multiplied with it
        self._experts: dict[int, dict[str, int]] = {}  # the same of experts, and how many there are
        self._ids: dict[int, int] = {}  # value -> address of the experts' numbers, int32 [tokens, used]
        plan = executor.plans[1]
        for call, arguments in zip(plan.calls, plan.arguments, strict=True):
            node = call.node
            if node.op not in PRODUCTS:
                continue
            value, weights = node.inputs[0].id, [node.weights[role] for role in PRODUCTS[node.op]]
            if _tensor(weights[0]) in HEADS and not process_output:
                continue
            if node.op != "expert_linear":
                self._dense.setdefault(value, set()).update(_tensor(weight) for weight in weights)
                continue
            self._experts.setdefault(value, {}).update({_tensor(w): w.shape[0] for w in weights})
            if "ids" in call.args:
                self._ids[value] = int(arguments["ids"])
        self._step: Step | None = None
        self._seen: set[tuple[int, bool]] = set()

    def run(self, step: Step, cancel: CancelFlag | None) -> None:
        self._step, self._seen = step, set()
        self._executor.watch(step, self._before, cancel)

    def _before(self, call: Call, arguments: NDArray[Any]) -> None:
        node = call.node
        if node.op not in PRODUCTS:
            return
        value, x = node.inputs[0], call.args.get("x")
        is_expert = node.op == "expert_linear"
        # Only as float32 a value has its own name; the int8 forms of it are called otherwise.
        if not isinstance(x, Buffer) or x.name != value.name or (value.id, is_expert) in self._seen:
            return
        self._seen.add((value.id, is_expert))
        rows = _matrix(int(arguments["x"]), self._rows(value), value.cols, np.float32)
        if not is_expert:
            for name in self._dense.get(value.id, ()):
                self._sums.add(name, rows)
            return
        self._add_experts(value, node.inputs[1].cols, rows)

    def _add_experts(self, value: Value, n_used: int, rows: NDArray[np.float32]) -> None:
        """Each expert was multiplied with the rows of the tokens that chose it."""
        assert self._step is not None
        ids = _matrix(self._ids[value.id], self._step.n_tokens, n_used, np.int32)
        for name, experts in self._experts[value.id].items():
            for expert in np.unique(ids):
                chosen = (ids == expert).any(axis=1) if value.repeat == 1 else (ids == expert).reshape(-1)
                self._sums.add(name, rows[chosen], int(expert), experts)

    def _rows(self, value: Value) -> int:
        assert self._step is not None
        return (self._step.n_tokens if value.rows is Rows.TOKENS else len(self._step.outputs)) * value.repeat


def _tensor(weight: Weight) -> str:
    """The tensor of a weight, which may be some rows of it."""
    return weight.name.partition("[")[0]


def _matrix(address: int, rows: int, cols: int, dtype: type[np.generic]) -> NDArray[Any]:
    """What lies at an address, as a matrix."""
    memory: Any = (ctypes.c_ubyte * (rows * cols * 4)).from_address(address)
    found: NDArray[Any] = np.frombuffer(memory, np.dtype(dtype)).reshape(rows, cols)
    return found
