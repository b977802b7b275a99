"""Qwen 3 with experts: as Qwen 3, with a mixture of experts in every layer."""

from __future__ import annotations

from ..graph.builder import GraphBuilder
from . import blocks
from .config import Config
from .hparams import Hparams, read_hparams, require_experts
from .rope import read_rope


def build(g: GraphBuilder, c: Config) -> Hparams:
    hp = read_hparams(c, experts=True)
    experts = require_experts(c, hp)
    rope = read_rope(g, c, "neox", hp.attention.key_dim, hp.context_length)
    x = g.embed("token_embd", hp.n_vocab, hp.n_embd)
    for i in range(hp.n_layer):
        with g.block(i):
            h = g.rms_norm(x, "attn_norm", hp.eps)
            h = blocks.self_attention(g, h, hp, hp.attention, rope, qk_norm_eps=hp.eps)
            x = blocks.residual(g, hp, i, x, h)
            x = g.add(x, blocks.moe_swiglu(g, g.rms_norm(x, "ffn_norm", hp.eps), hp, experts))
    g.output(blocks.head(g, g.rms_norm(x, "output_norm", hp.eps), hp))
    return hp
