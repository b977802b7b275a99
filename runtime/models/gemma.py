"""Gemma 1 and CodeGemma: llama blocks with a scaled embedding, gated gelu, and rope that pairs halves.

Converters add the one of Gemma's `1 + weight` norms to the stored weights, so its norms are plain ones here.
"""

from __future__ import annotations

import math

from ..graph.builder import GraphBuilder
from . import blocks
from .config import Config
from .hparams import Hparams, read_hparams
from .rope import read_rope


def build(g: GraphBuilder, c: Config) -> Hparams:
    hp = read_hparams(c)
    rope = read_rope(g, c, "neox", hp.attention.key_dim, hp.context_length)
    x = g.embed("token_embd", hp.n_vocab, hp.n_embd, scale=math.sqrt(hp.n_embd))
    for i in range(hp.n_layer):
        with g.block(i):
            h = blocks.self_attention(g, g.rms_norm(x, "attn_norm", hp.eps), hp, hp.attention, rope)
            x = blocks.residual(g, hp, i, x, h)
            x = g.add(x, blocks.swiglu(g, g.rms_norm(x, "ffn_norm", hp.eps), hp, "gelu_tanh"))
    g.output(blocks.head(g, g.rms_norm(x, "output_norm", hp.eps), hp))
    return hp
