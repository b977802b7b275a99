"""GPT-NeoX and Pythia: attention and MLP read the same input, side by side; rope turns a part of each head.

Models without the parallel residual have the MLP after attention, as others do.
"""

from __future__ import annotations

from ..graph.builder import GraphBuilder
from . import blocks
from .config import Config
from .hparams import Hparams, read_hparams
from .rope import read_rope


def build(g: GraphBuilder, c: Config) -> Hparams:
    hp = read_hparams(c, eps_key="attention.layer_norm_epsilon")
    parallel = c.scope.require("use_parallel_residual", bool)
    rope = read_rope(g, c, "neox", hp.attention.key_dim, hp.context_length)
    x = g.embed("token_embd", hp.n_vocab, hp.n_embd)
    for i in range(hp.n_layer):
        with g.block(i):
            h = blocks.self_attention(g, g.layer_norm(x, "attn_norm", hp.eps), hp, hp.attention, rope)
            before, h = blocks.wanted_rows(g, hp, i, x, h)
            x = g.add(before, h)
            h = g.layer_norm(before if parallel else x, "ffn_norm", hp.eps)
            x = g.add(x, blocks.mlp(g, h, hp, "gelu"))
    g.output(blocks.head(g, g.layer_norm(x, "output_norm", hp.eps), hp))
    return hp
