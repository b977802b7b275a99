"""Qwen 1.5 and 2 with experts: as Qwen 2, with a mixture of experts and one expert for every token in every layer.

The weights of the experts used are their probabilities, which do not add up to one.
"""

from __future__ import annotations

from ..graph.builder import GraphBuilder
from . import blocks
from .config import Config
from .hparams import Hparams, read_hparams, require_experts
from .rope import read_rope


def build(g: GraphBuilder, c: Config) -> Hparams:
    hp = read_hparams(c, experts=True)
    experts = require_experts(c, hp)
    n_ff_shared = c.count("expert_shared_feed_forward_length", default=hp.n_ff)
    rope = read_rope(g, c, "neox", hp.attention.key_dim, hp.context_length)
    x = g.embed("token_embd", hp.n_vocab, hp.n_embd)
    for i in range(hp.n_layer):
        with g.block(i):
            h = blocks.self_attention(g, g.rms_norm(x, "attn_norm", hp.eps), hp, hp.attention, rope)
            x = blocks.residual(g, hp, i, x, h)
            h = g.rms_norm(x, "ffn_norm", hp.eps)
            some = blocks.moe_swiglu(g, h, hp, experts, normalize=False)
            x = g.add(x, g.add(some, blocks.shared_expert(g, h, hp, n_ff_shared)))
    g.output(blocks.head(g, g.rms_norm(x, "output_norm", hp.eps), hp))
    return hp
