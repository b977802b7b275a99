"""Llama 1-3, Mistral, SmolLM2, TinyLlama, Yi; with experts, Mixtral.

Pre-norm blocks of grouped-query attention and SwiGLU. Converters reorder query and key rows, so rope pairs neighbours.
"""

from __future__ import annotations

from ..graph.builder import GraphBuilder
from . import blocks
from .config import Config
from .hparams import Hparams, read_hparams
from .rope import read_rope


def build(g: GraphBuilder, c: Config) -> Hparams:
    hp = read_hparams(c, experts=True)
    rope = read_rope(g, c, "norm", hp.attention.key_dim, hp.context_length)
    x = g.embed("token_embd", hp.n_vocab, hp.n_embd)
    for i in range(hp.n_layer):
        with g.block(i):
            h = blocks.self_attention(g, g.rms_norm(x, "attn_norm", hp.eps), hp, hp.attention, rope)
            x = blocks.residual(g, hp, i, x, h)
            h = g.rms_norm(x, "ffn_norm", hp.eps)
            x = g.add(x, blocks.moe_swiglu(g, h, hp, hp.experts) if hp.experts else blocks.swiglu(g, h, hp))
    g.output(blocks.head(g, g.rms_norm(x, "output_norm", hp.eps), hp))
    return hp
