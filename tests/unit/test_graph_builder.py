"""The builder: names, weights checked against the file, tensors in use, packed tensors without copies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.errors import ModelFileError, UnsupportedError
from halfbyte.formats.gguf.types import GGMLType
from halfbyte.formats.quants import decode
from halfbyte.runtime.graph.builder import GraphBuilder
from halfbyte.runtime.graph.verify import GraphError


def tensor(name: str, *shape: int, type: GGMLType = GGMLType.F32) -> Any:
    """A stand-in for GGUFTensor, filled with 0, 1, 2, ... where it is float32."""
    data = np.zeros((*shape[:-1], type.row_bytes(shape[-1])), np.uint8)
    if type is GGMLType.F32:
        data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape).view(np.uint8)
    return SimpleNamespace(name=name, type=type, shape=shape, data=data, made_of=None)


def builder(*tensors: Any) -> GraphBuilder:
    return GraphBuilder({t.name: t for t in tensors}, "model.gguf")


EMBEDDING = tensor("token_embd.weight", 5, 12)


def test_names_weights_and_parameters() -> None:
    norm = tensor("blk.3.attn_norm.weight", 12)
    g = builder(EMBEDDING, norm)
    x = g.embed("token_embd", 5, 12)
    with g.block(3):
        h = g.rms_norm(x, "attn_norm", 1e-6)
    g.output(g.linear(g.take_rows(g.add(x, h)), "token_embd", 5))
    graph = g.finish()
    assert [(n.op, n.name) for n in graph.nodes] == [
        ("embed", "token_embd"),
        ("rms_norm", "blk.3.attn_norm"),
        ("add", "add"),
        ("take_rows", "take_rows"),
        ("linear", "token_embd"),
    ]
    assert graph.nodes[1].weights["weight"].data is norm.data, "weights are used in place"
    assert graph.nodes[1].attrs == {"eps": 1e-6, "heads": 1}, "defaults are filled in"
    assert graph.nodes[0].weights["weight"] is graph.nodes[4].weights["weight"], "a tied tensor is one weight"
    assert g.n_params == 5 * 12 + 12


def test_bias_is_used_where_the_file_has_one() -> None:
    g = builder(EMBEDDING, tensor("a.weight", 3, 12), tensor("a.bias", 3), tensor("b.weight", 4, 12))
    x = g.embed("token_embd", 5, 12)
    g.linear(x, "a", 3)
    g.output(g.linear(g.take_rows(x), "b", 4))
    nodes = {n.name: n for n in g.finish().nodes}
    assert (set(nodes["a"].weights), set(nodes["b"].weights)) == ({"weight", "bias"}, {"weight"})


def test_packed_tensors_are_sliced_without_a_copy() -> None:
    packed, bias = tensor("blk.0.attn_qkv.weight", 9, 12), tensor("blk.0.attn_qkv.bias", 9)
    g = builder(EMBEDDING, packed, bias)
    x = g.embed("token_embd", 5, 12)
    with g.block(0):
        q, k, v = g.split_linear(x, "attn_qkv", (4, 3, 2))
    assert [y.cols for y in (q, k, v)] == [4, 3, 2]
    weights = [n.weights for n in g._nodes[1:]]
    assert [w["weight"].name for w in weights] == [f"blk.0.attn_qkv.weight[{r}]" for r in ("0:4", "4:7", "7:9")]
    for array, role in ((packed, "weight"), (bias, "bias")):
        assert all(np.shares_memory(w[role].data, array.data) for w in weights)
        parts = [decode(w[role].data, w[role].type) for w in weights]
        assert np.array_equal(np.concatenate(parts), decode(array.data, GGMLType.F32))


def test_half_precision_vectors_are_sliced_by_element() -> None:
    bias = tensor("a.bias", 5, type=GGMLType.F16)
    bias.data = np.arange(5, dtype=np.float16).view(np.uint8)
    g = builder(EMBEDDING, tensor("a.weight", 5, 12), bias)
    g.split_linear(g.embed("token_embd", 5, 12), "a", (2, 3))
    parts = [n.weights["bias"] for n in g._nodes[1:]]
    assert [decode(p.data, p.type).tolist() for p in parts] == [[0, 1], [2, 3, 4]]


def test_missing_and_misshapen_tensors() -> None:
    g = builder(EMBEDDING)
    message = r"model\.gguf, 'blk\.7\.attn_q\.weight': tensor is missing.*\(9, 12\)"
    with pytest.raises(ModelFileError, match=message), g.block(7):
        g.weight("attn_q.weight", 9, 12)
    with pytest.raises(ModelFileError, match=r"wrong shape \(got \(5, 12\), allowed: \(12, 5\)\)"):
        g.embed("token_embd", 12, 5)


def test_types_without_meaning_here() -> None:
    g = builder(tensor("i", 4, 3, type=GGMLType.I32), tensor("n", 32, type=GGMLType.Q8_0))
    with pytest.raises(UnsupportedError, match=r"model\.gguf: 'i': weights of type I32 cannot be read"):
        g.weight("i", 4, 3)
    with pytest.raises(ModelFileError, match=r"'n': a norm or bias cannot be of this type \(got 'Q8_0'"):
        g.weight("n", 32)


def test_unused_tensors_are_refused() -> None:
    g = builder(EMBEDDING, *(tensor(f"spare.{i}", 2) for i in range(12)))
    g.output(g.linear(g.take_rows(g.embed("token_embd", 5, 12)), "token_embd", 5))
    with pytest.raises(UnsupportedError, match=r"no use for the tensors spare\.0, .*spare\.9 and 2 more\."):
        g.finish()


def test_mistakes_of_a_family_name_the_node() -> None:
    g = builder(EMBEDDING)
    x = g.embed("token_embd", 5, 12)
    message = r"node 1 softcap\(blk\.2\.softcap\): cap is -1, must be a finite number above 0"
    with pytest.raises(GraphError, match=message), g.block(2):
        g.softcap(x, -1)
    with pytest.raises(GraphError, match=r"node 2 add\(add\): inputs differ: f32\[tokens, 12\] and f32\[outputs, 12\]"):
        g.add(x, g.take_rows(x))


def test_attention_declares_the_state_of_its_block() -> None:
    g = builder(EMBEDDING)
    x = g.embed("token_embd", 5, 12)
    with g.block(4):
        g.attention(x, x, x, n_head=3, n_head_kv=3, key_dim=4, value_dim=4, scale=0.5, window=8)
    assert [(s.layer, s.window) for s in g._state] == [(4, 8)]


def test_experts() -> None:
    g = builder(EMBEDDING, tensor("r.weight", 6, 12), tensor("e.weight", 6, 7, 12), tensor("e.bias", 6, 7))
    x = g.embed("token_embd", 5, 12)
    ids, weights = g.moe_route(g.linear(x, "r", 6), n_used=2, normalize=True)
    y = g.expert_linear(x, ids, "e", 6, 7)
    assert ((ids.dtype, ids.cols), (weights.dtype, weights.cols)) == (("i32", 2), ("f32", 2))
    assert (y.repeat, y.cols) == (2, 7)
    assert (g.expert_combine(y, weights).repeat, g.expert_combine(y, weights).cols) == (1, 7)
    with pytest.raises(GraphError, match=r"expert_linear\(e\): input 1 must be i32 expert ids"):
        g.expert_linear(x, weights, "e", 6, 7)
