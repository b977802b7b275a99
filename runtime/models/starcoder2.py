"""StarCoder 2: grouped-query attention with rope that pairs halves; layer norms, biases and a plain MLP as in GPT-2."""

from __future__ import annotations

from ..graph.builder import GraphBuilder
from . import blocks
from .config import Config
from .hparams import Hparams, read_hparams
from .rope import read_rope


def build(g: GraphBuilder, c: Config) -> Hparams:
    hp = read_hparams(c, eps_key="attention.layer_norm_epsilon")
    rope = read_rope(g, c, "neox", hp.attention.key_dim, hp.context_length)
    x = g.embed("token_embd", hp.n_vocab, hp.n_embd)
    for i in range(hp.n_layer):
        with g.block(i):
            h = blocks.self_attention(g, g.layer_norm(x, "attn_norm", hp.eps), hp, hp.attention, rope)
            x = blocks.residual(g, hp, i, x, h)
            x = g.add(x, blocks.mlp(g, g.layer_norm(x, "ffn_norm", hp.eps), hp, "gelu_tanh"))
    g.output(blocks.head(g, g.layer_norm(x, "output_norm", hp.eps), hp))
    return hp
