"""OLMo 2: llama blocks with norms after attention and feed-forward, none before; all heads are normed as one row."""

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
            h = blocks.self_attention(g, x, hp, hp.attention, rope, qk_norm_eps=hp.eps, norm_all_heads=True)
            x = blocks.residual(g, hp, i, x, g.rms_norm(h, "post_attention_norm", hp.eps))
            x = g.add(x, g.rms_norm(blocks.swiglu(g, x, hp), "post_ffw_norm", hp.eps))
    g.output(blocks.head(g, g.rms_norm(x, "output_norm", hp.eps), hp))
    return hp
