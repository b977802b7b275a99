"""Each rewrite on graphs made by hand: where it applies, and each reason not to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.graph.builder import GraphBuilder
from halfbyte.runtime.graph.ir import Graph, Rows, Value
from halfbyte.runtime.graph.rewrites import FUSIONS, Rewrite, fuse_gated_mlp, fuse_residual, rewrite, take_rows_early
from halfbyte.runtime.graph.verify import verify

from ..models.running import distance, page_table, step
from ..tolerances import BLAS_SUM
from .test_graph_builder import builder, tensor

SIZES = {"a": (12, 12), "b": (12, 12), "up": (20, 12), "gate": (20, 12), "down": (12, 20), "output": (5, 12)}
Build = Callable[[GraphBuilder, Value], Value]


def graph_of(build: Build, *, biased: tuple[str, ...] = ()) -> Graph:
    """embed, then what `build` adds, then take_rows and the output; tensors of random values."""
    rng = np.random.default_rng(4)
    shapes = {"token_embd.weight": (5, 12), "norm.weight": (12,)}
    shapes |= {f"{name}.weight": shape for name, shape in SIZES.items()}
    shapes |= {f"{name}.bias": SIZES[name][:1] for name in biased}
    tensors = [tensor(name, *shape) for name, shape in shapes.items()]
    for each in tensors:
        each.data = rng.standard_normal(each.shape).astype(np.float32).view(np.uint8)
    g = builder(*tensors)
    y = build(g, g.embed("token_embd", 5, 12))
    g.output(y if y.rows is Rows.OUTPUTS else linear(g, g.take_rows(y), "output"))
    g._used.update({t.name: g._checked(t) for t in tensors})  # a graph need not use all of them here
    return g.finish()


def linear(g: GraphBuilder, x: Value, name: str) -> Value:
    return g.linear(x, name, SIZES[name][0])


def mlp(g: GraphBuilder, x: Value) -> Value:
    return linear(g, g.glu(linear(g, x, "gate"), linear(g, x, "up"), "gelu"), "down")


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def logits(graph: Graph) -> np.ndarray:
    tokens = np.array([3, 1, 4, 1, 2], np.int32)
    return ReferenceBackend().compile(graph, n_pages=9, max_tokens=8).run(step([(0, 0, tokens)], page_table(1), [1, 4]))


APPLIED: dict[str, tuple[Rewrite, Build, list[str]]] = {
    "gate and up": (fuse_gated_mlp, mlp, ["embed", "linear_glu", "linear"]),
    "up before gate": (
        fuse_gated_mlp,
        lambda g, x: linear(g, (lambda up: g.glu(linear(g, x, "gate"), up, "silu"))(linear(g, x, "up")), "down"),
        ["embed", "linear_glu", "linear"],
    ),
    "residual first": (fuse_residual, lambda g, x: g.add(x, linear(g, x, "a")), ["embed", "linear_add"]),
    "residual last": (fuse_residual, lambda g, x: g.add(linear(g, x, "a"), x), ["embed", "linear_add"]),
    "one of two products": (
        fuse_residual,
        lambda g, x: g.add(linear(g, x, "b"), linear(g, x, "a")),
        ["embed", "linear", "linear_add"],
    ),
    "rows of a product": (
        take_rows_early,
        lambda g, x: linear(g, g.take_rows(linear(g, g.scale(x, 2.0), "a")), "output"),
        ["embed", "take_rows", "scale", "linear", "linear"],
    ),
    "rows of a norm": (take_rows_early, lambda g, x: g.rms_norm(x, "norm", 1e-6), ["embed", "take_rows", "rms_norm"]),
}


@pytest.mark.parametrize("name", APPLIED)
@pytest.mark.parametrize("biased", [(), ("a", "gate", "up", "down"), ("up",)])
def test_applied(name: str, biased: tuple[str, ...]) -> None:
    function, build, expected = APPLIED[name]
    before = graph_of(build, biased=biased)
    after = function(before)
    verify(after)
    assert ops(after)[: len(expected)] == expected
    assert ops(before) != ops(after)
    assert distance(logits(after), logits(before)) < BLAS_SUM
    assert function(after) == after, "a second time there is nothing left to do"


def used_twice(g: GraphBuilder, x: Value) -> Value:
    up = linear(g, x, "up")
    return linear(g, g.glu(g.glu(linear(g, x, "gate"), up, "silu"), up, "silu"), "down")


def two_inputs(g: GraphBuilder, x: Value) -> Value:
    return linear(g, g.glu(linear(g, x, "gate"), linear(g, g.scale(x, 0.5), "up"), "silu"), "down")


def gated_by_itself(g: GraphBuilder, x: Value) -> Value:
    up = linear(g, x, "up")
    return linear(g, g.glu(up, up, "silu"), "down")


def normed_between(g: GraphBuilder, x: Value) -> Value:
    return g.add(x, g.rms_norm(linear(g, x, "a"), "norm", 1e-6))


def product_read_again(g: GraphBuilder, x: Value) -> Value:
    y = linear(g, x, "a")
    return g.add(g.add(x, y), g.scale(y, 0.5))


def doubled(g: GraphBuilder, x: Value) -> Value:
    y = linear(g, x, "a")
    return g.add(y, y)


def rows_and_all(g: GraphBuilder, x: Value) -> Value:
    y = g.scale(x, 2.0)
    return g.add(linear(g, g.take_rows(y), "a"), g.take_rows(g.add(y, x)))


NOT_APPLIED: dict[str, tuple[Rewrite, Build]] = {
    "up is read twice": (fuse_gated_mlp, used_twice),
    "gate and up of two inputs": (fuse_gated_mlp, two_inputs),
    "gate is up": (fuse_gated_mlp, gated_by_itself),
    "a norm between product and residual": (fuse_residual, normed_between),
    "the product is read again": (fuse_residual, product_read_again),
    "a product added to itself": (fuse_residual, doubled),
    "two sums of nothing multiplied": (fuse_residual, lambda g, x: g.add(x, g.add(x, g.scale(x, 2.0)))),
    "all rows are wanted too": (take_rows_early, rows_and_all),
    "add has two inputs": (take_rows_early, lambda g, x: g.add(x, g.scale(x, 2.0))),
}


@pytest.mark.parametrize("name", NOT_APPLIED)
def test_not_applied(name: str) -> None:
    function, build = NOT_APPLIED[name]
    graph = graph_of(build)
    assert function(graph) == graph


def test_logits_are_kept() -> None:
    """A product that is the result of the graph stays, although an add is its only reader."""
    g = builder(tensor("token_embd.weight", 12, 12))
    y = g.linear(g.take_rows(g.embed("token_embd", 12, 12)), "token_embd", 12)
    g.scale(g.add(g.take_rows(g.embed("token_embd", 12, 12)), y), 2.0)
    g.output(y)
    graph = g.finish()
    assert fuse_residual(graph) == graph


def test_packed_tensors_stay_where_they_are() -> None:
    """Gate and up as rows of one tensor, as Phi 3 has them: still views of the file."""
    packed = tensor("ffn_up.weight", 8, 12)
    g = builder(tensor("token_embd.weight", 4, 12), packed)
    gate, up = g.split_linear(g.embed("token_embd", 4, 12), "ffn_up", (4, 4))
    g.output(g.take_rows(g.glu(gate, up, "silu")))
    after = rewrite(g.finish())
    verify(after)
    node = next(node for node in after.nodes if node.op == "linear_glu")
    assert all(np.shares_memory(node.weights[role].data, packed.data) for role in ("gate", "up"))
    assert node.weights["gate"].name == "ffn_up.weight[0:4]"


def test_types_may_differ() -> None:
    g = builder(tensor("token_embd.weight", 5, 32), *(tensor(f"{n}.weight", 5, 32) for n in ("up", "down")))
    g._tensors["gate.weight"] = tensor("gate.weight", 5, 32, type=GGMLType.Q8_0)
    x = g.embed("token_embd", 5, 32)
    h = g.glu(g.linear(x, "gate", 5), g.linear(x, "up", 5), "silu")
    g.output(g.take_rows(g.add(h, g.linear(x, "down", 5))))
    after = rewrite(g.finish())
    verify(after)
    assert sorted(ops(after)) == ["embed", "linear_add", "linear_glu", "take_rows"]


def test_the_order_is_listed() -> None:
    assert (take_rows_early, fuse_gated_mlp, fuse_residual) == FUSIONS
