"""Phi 3, 3.5 and 4: Llama blocks with packed matrices."""

from __future__ import annotations

from ..config import Config
from .family import Family, Keys
from .shared import LAYERS, LLAMA_NAMES, decoder_keys, rope_factors


def _keys(c: Config) -> Keys:
    c.expect("hidden_act", "silu")
    keys = decoder_keys(c)
    if "sliding_window" in c:
        keys["attention.sliding_window"] = c.count("sliding_window", high=1 << 30)
    return keys


PHI3 = Family(
    "phi3",
    keys=_keys,
    names={
        **{stem: name for stem, name in LLAMA_NAMES.items() if not stem.endswith(("_proj", "lm_head"))},
        "lm_head": "output",
        f"{LAYERS}self_attn.qkv_proj": "blk.{i}.attn_qkv",
        f"{LAYERS}self_attn.o_proj": "blk.{i}.attn_output",
        f"{LAYERS}mlp.gate_up_proj": "blk.{i}.ffn_up",
        f"{LAYERS}mlp.down_proj": "blk.{i}.ffn_down",
    },
    extra=rope_factors,
)
