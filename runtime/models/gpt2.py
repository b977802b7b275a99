"""GPT-2: learned positions, layer norms and biases everywhere, a plain MLP."""

from __future__ import annotations

from dataclasses import replace

from ..graph.builder import GraphBuilder
from . import blocks
from .config import Config
from .hparams import Hparams, read_hparams


def build(g: GraphBuilder, c: Config) -> Hparams:
    hp = read_hparams(c, eps_key="attention.layer_norm_epsilon")
    hp = replace(hp, max_context=hp.context_length)  # there is no row for a position beyond
    positions = g.embed("position_embd", hp.context_length, hp.n_embd, source="positions")
    x = g.add(g.embed("token_embd", hp.n_vocab, hp.n_embd), positions)
    for i in range(hp.n_layer):
        with g.block(i):
            h = blocks.self_attention(g, g.layer_norm(x, "attn_norm", hp.eps), hp, hp.attention, None)
            x = blocks.residual(g, hp, i, x, h)
            x = g.add(x, blocks.mlp(g, g.layer_norm(x, "ffn_norm", hp.eps), hp, "gelu_tanh"))
    g.output(blocks.head(g, g.layer_norm(x, "output_norm", hp.eps), hp))
    return hp
