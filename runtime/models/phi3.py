"""Phi 3, 3.5 and 4: llama blocks with packed tensors (attn_qkv, ffn_up), rope that pairs halves, often longrope."""

from __future__ import annotations

from ..graph.builder import GraphBuilder
from . import blocks
from .config import Config
from .hparams import Hparams, read_hparams
from .rope import read_rope


def build(g: GraphBuilder, c: Config) -> Hparams:
    hp = read_hparams(c)
    rope = read_rope(g, c, "neox", hp.attention.key_dim, hp.context_length)
    x = g.embed("token_embd", hp.n_vocab, hp.n_embd)
    for i in range(hp.n_layer):
        with g.block(i):
            h = blocks.self_attention(g, g.rms_norm(x, "attn_norm", hp.eps), hp, hp.attention, rope)
            x = blocks.residual(g, hp, i, x, h)
            x = g.add(x, blocks.fused_swiglu(g, g.rms_norm(x, "ffn_norm", hp.eps), hp))
    g.output(blocks.head(g, g.rms_norm(x, "output_norm", hp.eps), hp))
    return hp
