"""Gemma 3: scaled embedding, norms before and after each half, normed queries and keys, windows in five of six layers.

Converters add the one of Gemma's `1 + weight` norms to the stored weights, so its norms are plain ones here.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..graph.builder import GraphBuilder
from . import blocks
from .config import Config
from .hparams import Attention, Hparams, read_hparams
from .rope import Rope, frequencies, read_rope

WINDOW_PATTERN = 6  # every sixth layer sees everything
N_LAYER_27B = 62  # the one size whose queries are not scaled by its head dim


def build(g: GraphBuilder, c: Config) -> Hparams:
    hp = read_hparams(c)
    rope = read_rope(g, c, "neox", hp.attention.key_dim, hp.context_length)
    layers = _layers(c, hp, rope)
    cap = c.number("final_logit_softcapping") if "final_logit_softcapping" in c.scope else None
    x = g.embed("token_embd", hp.n_vocab, hp.n_embd, scale=math.sqrt(hp.n_embd))
    for i, (attention, rotation) in enumerate(layers):
        with g.block(i):
            h = g.rms_norm(x, "attn_norm", hp.eps)
            h = blocks.self_attention(g, h, hp, attention, rotation, qk_norm_eps=hp.eps)
            x = blocks.residual(g, hp, i, x, g.rms_norm(h, "post_attention_norm", hp.eps))
            h = blocks.swiglu(g, g.rms_norm(x, "ffn_norm", hp.eps), hp, "gelu_tanh")
            x = g.add(x, g.rms_norm(h, "post_ffw_norm", hp.eps))
    logits = blocks.head(g, g.rms_norm(x, "output_norm", hp.eps), hp)
    g.output(logits if cap is None else g.softcap(logits, cap))
    return hp


def _layers(c: Config, hp: Hparams, rope: Rope) -> list[tuple[Attention, Rope]]:
    """Attention and rotation of each layer: windowed layers have their own base and no scaling."""
    a = hp.attention
    if hp.n_layer == N_LAYER_27B and "attention.scale" not in c.scope:
        a = replace(a, scale=1 / math.sqrt(hp.n_embd / a.n_head))
    local_base = c.number("rope.freq_base_swa", 10_000.0, low=1.0, high=1e12)
    pattern = c.count("attention.sliding_window_pattern", minimum=1, default=WINDOW_PATTERN)
    if not a.window:
        return [(a, rope)] * hp.n_layer
    local = Rope(rope.n_rot, rope.style, frequencies(rope.n_rot, local_base).astype(np.float32))
    return [(replace(a, window=0), rope) if (i + 1) % pattern == 0 else (a, local) for i in range(hp.n_layer)]
