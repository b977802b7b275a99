"""The graph: frozen dataclasses and nothing else.

Every value is a matrix of shape [rows, cols], row-major and contiguous. Its number of rows is symbolic, because one
graph serves every batch: `Rows.TOKENS` (all tokens of the step) or `Rows.OUTPUTS` (those whose logits are wanted),
times `repeat` (experts used per token in a mixture of experts). Columns are fixed when the graph is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...formats.gguf.types import GGMLType


class Rows(Enum):
    """What the rows of a value stand for."""

    TOKENS = "tokens"
    OUTPUTS = "outputs"


@dataclass(frozen=True)
class Value:
    """A matrix flowing between nodes; `id` is unique in its graph, `name` is a GGUF name where one exists."""

    id: int
    name: str
    rows: Rows
    cols: int
    repeat: int = 1
    dtype: str = "f32"  # "f32" or "i32"

    @property
    def element(self) -> type[np.generic]:
        """NumPy's type of its elements."""
        return np.int32 if self.dtype == "i32" else np.float32


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor of the model file, used in place.

    `data` is the raw block data, uint8 [..., rows, row_bytes]; `shape` counts elements in NumPy order: (cols,) for a
    vector, (rows, cols) for a matrix, (experts, rows, cols) for stacked experts. `made_of`: see GGUFTensor. Some rows
    of a tensor know which: `part_of` is its name, `first_row` counts from its beginning.
    """

    name: str
    type: GGMLType
    shape: tuple[int, ...]
    data: NDArray[np.uint8]
    made_of: GGMLType | None = None
    part_of: str | None = None
    first_row: int = 0

    @property
    def tensor(self) -> str:
        """The name in the file."""
        return self.part_of or self.name

    @property
    def cols(self) -> int:
        return self.shape[-1]

    @property
    def n_rows(self) -> int:
        return self.shape[-2] if len(self.shape) > 1 else 1

    def rows(self, start: int, stop: int) -> Weight:
        """Rows [start, stop) of a matrix, without a copy (rows are contiguous in every GGUF type)."""
        name, shape = f"{self.name}[{start}:{stop}]", (stop - start, self.cols)
        first = self.first_row + start
        return Weight(name, self.type, shape, self.data[start:stop], self.made_of, self.tensor, first)


@dataclass(frozen=True)
class KVSpec:
    """The key/value state of one attention layer. `window` = 0 means unlimited."""

    layer: int
    n_head_kv: int
    key_dim: int
    value_dim: int
    window: int = 0


@dataclass(frozen=True)
class Node:
    """One operation. `weights` are keyed by role ("weight", "bias"), `attrs` are Python values or small arrays."""

    op: str
    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    weights: Mapping[str, Weight] = field(default_factory=lambda: MappingProxyType({}))
    attrs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order, the logits value [OUTPUTS, vocabulary], and the state each layer keeps.

    A part of a graph (parts.py) is given values that other parts make, and keeps some for those that follow; its
    `logits` are then the last of these. Values that are held stay where it runs: parts before it at the same place have
    made them or were given them, or parts behind it read them.
    """

    nodes: tuple[Node, ...]
    logits: Value
    state: tuple[KVSpec, ...]
    given: tuple[Value, ...] = ()
    kept: tuple[Value, ...] = ()
    held: tuple[Value, ...] = ()

    @property
    def outside(self) -> tuple[Value, ...]:
        """Values that others read or write: they live outside of a plan's own memory."""
        return tuple(dict.fromkeys((*self.given, *self.results, *self.held)))

    @property
    def results(self) -> tuple[Value, ...]:
        """What a run gives back."""
        return tuple(dict.fromkeys((*self.kept, self.logits)))

    @property
    def is_causal(self) -> bool:
        """Whether a token sees only those before it: then a text may come in pieces, and can be continued."""
        return all(node.attrs["causal"] for node in self.nodes if node.op == "attention")
