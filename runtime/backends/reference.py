"""The reference backend: runs each op's own definition, in float32, one after the other. Slow, short, and the judge."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...formats.errors import Cancelled
from ...formats.quants import decode
from ..cache.kv import KVPool
from ..graph.ir import Graph, Node, Weight
from ..ops import OPS
from ..step import PAGE, Step
from .base import CancelFlag, Progress, Values


class ReferenceBackend:
    """Executes graphs with NumPy. `kv_dtype` is how keys and values are stored; float32 keeps every bit."""

    name = "reference"

    def __init__(self, kv_dtype: DTypeLike = np.float32) -> None:
        self.kv_dtype = kv_dtype

    def compile(
        self, graph: Graph, *, n_pages: int, max_tokens: int, threads: int = 1, progress: Progress | None = None
    ) -> ReferenceExecutor:
        """Nothing is compiled: weights are decoded when an op first needs them. `threads` is left to NumPy."""
        return ReferenceExecutor(graph, KVPool(graph.state, n_pages, self.kv_dtype), max_tokens)


class ReferenceExecutor:
    """See base.Executor."""

    def __init__(self, graph: Graph, kv: KVPool, max_tokens: int) -> None:
        self.kv, self.max_tokens = kv, max_tokens
        self._graph = graph
        self._decoded: dict[Weight, NDArray[np.float32]] = {}
        self._last_use = {value.id: i for i, node in enumerate(graph.nodes) for value in node.inputs}
        self._last_use.update({value.id: len(graph.nodes) for value in graph.outside})

    def run(self, step: Step, cancel: CancelFlag | None = None) -> NDArray[np.float32]:
        """See base.Executor.run. The result is a new array."""
        return self.run_part(step, {}, cancel)[self._graph.logits.id]

    def run_part(self, step: Step, given: Values, cancel: CancelFlag | None = None) -> dict[int, NDArray[Any]]:
        """See base.Executor.run_part. The results are new arrays."""
        self._check(step)
        values: dict[int, NDArray[Any]] = {value.id: given[value.id] for value in self._graph.given}
        for index, node in enumerate(self._graph.nodes):
            if cancel:
                raise Cancelled("cancelled between two operations of a step")
            results = self._apply(node, [values[v.id] for v in node.inputs], step)
            values.update(zip((v.id for v in node.outputs), results, strict=True))
            for value in (*node.inputs, *node.outputs):
                if self._last_use.get(value.id, -1) <= index:
                    values.pop(value.id, None)
        return {value.id: values[value.id] for value in self._graph.results}

    def close(self) -> None:
        """Forget the decoded weights."""
        self._decoded.clear()

    def _check(self, step: Step) -> None:
        """Negative indices would silently count from the end: the judge must not accept such a step."""
        if not 0 < step.n_tokens <= self.max_tokens:
            raise ValueError(f"a step of {step.n_tokens} tokens; this executor takes 1 to {self.max_tokens}")
        if min(step.tokens.min(), step.positions.min(), step.sequence.min()) < 0:
            raise ValueError("a step with a negative token, position or sequence")
        pages = step.pages[step.sequence, step.positions // PAGE]
        if not ((pages >= 0) & (pages < self.kv.n_pages)).all():
            raise ValueError(f"a token of the step has no page; pages are 0 to {self.kv.n_pages - 1}")

    def _apply(self, node: Node, inputs: list[NDArray[Any]], step: Step) -> tuple[NDArray[Any], ...]:
        spec = OPS[node.op]
        available = {"step": step, "kv": self.kv}
        weights = {role: self._weight(node.op, weight) for role, weight in node.weights.items()}
        result = spec.reference(*inputs, **weights, **node.attrs, **{name: available[name] for name in spec.needs})
        return result if isinstance(result, tuple) else (result,)

    def _weight(self, op: str, weight: Weight) -> Any:
        if op == "embed":
            return _LazyRows(weight)
        if weight not in self._decoded:
            self._decoded[weight] = decode(weight.data, weight.type)
        return self._decoded[weight]


class _LazyRows:
    """A matrix that decodes the rows it is asked for: a vocabulary is large, a batch uses few of its rows."""

    def __init__(self, weight: Weight) -> None:
        self._weight = weight

    def __getitem__(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        return decode(self._weight.data[rows], self._weight.type)
