"""BERT: an encoder of whole texts. Norms come after additions, and what comes out are the vectors of the last one."""

from __future__ import annotations

from dataclasses import replace

from ..graph.builder import GraphBuilder
from ..graph.ir import Value
from . import blocks
from .config import Config
from .hparams import Hparams, read_hparams


def build(g: GraphBuilder, c: Config) -> Hparams:
    hp = read_hparams(c, eps_key="attention.layer_norm_epsilon", encoder=True)
    hp = replace(hp, max_context=hp.context_length)  # there is no row for a position beyond
    x = g.layer_norm(_embedding(g, c, hp), "token_embd_norm", hp.eps)
    for i in range(hp.n_layer):
        with g.block(i):
            h = blocks.self_attention(g, x, hp, hp.attention, None, causal=False)
            x = g.layer_norm(g.add(x, h), "attn_output_norm", hp.eps)
            x = g.layer_norm(g.add(x, blocks.mlp(g, x, hp, "gelu")), "layer_output_norm", hp.eps)
    g.output(g.take_rows(x))
    return hp


def _embedding(g: GraphBuilder, c: Config, hp: Hparams) -> Value:
    """Token, position, and type: the first one, for there is one text and not a pair."""
    x = g.embed("token_embd", hp.n_vocab, hp.n_embd)
    if g.has("token_types.weight"):
        n_types = c.file.tensors["token_types.weight"].shape[0]
        x = g.add(x, g.embed("token_types", n_types, hp.n_embd, source="first"))
    return g.add(x, g.embed("position_embd", hp.context_length, hp.n_embd, source="positions"))
