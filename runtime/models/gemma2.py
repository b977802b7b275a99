"""Gemma 2: as Gemma, with norms before and after each half, a window in every other layer, and soft caps.

Scores of attention and logits are capped. What a file does not say is as in the released models.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ..graph.builder import GraphBuilder
from . import blocks
from .config import Config
from .hparams import Attention, Hparams, read_hparams
from .rope import read_rope

WINDOW, WINDOW_PATTERN = 4096, 2  # every second layer sees everything
SCORE_CAP, LOGIT_CAP = 50.0, 30.0
N_LAYER_27B = 46  # the one size whose queries are not scaled by its head dim


def build(g: GraphBuilder, c: Config) -> Hparams:
    hp = read_hparams(c)
    windowed = _attention(c, hp)
    rope = read_rope(g, c, "neox", windowed.key_dim, hp.context_length)
    pattern = c.count("attention.sliding_window_pattern", default=WINDOW_PATTERN)
    cap = c.number("final_logit_softcapping", LOGIT_CAP)
    x = g.embed("token_embd", hp.n_vocab, hp.n_embd, scale=math.sqrt(hp.n_embd))
    for i in range(hp.n_layer):
        attention = windowed if (i + 1) % pattern else replace(windowed, window=0)
        with g.block(i):
            h = blocks.self_attention(g, g.rms_norm(x, "attn_norm", hp.eps), hp, attention, rope)
            x = blocks.residual(g, hp, i, x, g.rms_norm(h, "post_attention_norm", hp.eps))
            h = blocks.swiglu(g, g.rms_norm(x, "ffn_norm", hp.eps), hp, "gelu_tanh")
            x = g.add(x, g.rms_norm(h, "post_ffw_norm", hp.eps))
    g.output(g.softcap(blocks.head(g, g.rms_norm(x, "output_norm", hp.eps), hp), cap))
    return hp


def _attention(c: Config, hp: Hparams) -> Attention:
    """Attention of the windowed layers."""
    a = hp.attention
    is_27b = hp.n_layer == N_LAYER_27B and "attention.scale" not in c.scope
    return replace(
        a,
        window=a.window or WINDOW,
        softcap=c.number("attn_logit_softcapping", SCORE_CAP),
        scale=1 / math.sqrt(hp.n_embd / a.n_head) if is_27b else a.scale,
    )
