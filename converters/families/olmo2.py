"""OLMo 2: Llama's names, with norms after attention and feed-forward."""

from __future__ import annotations

from ..config import Config
from .family import Family, Keys
from .shared import LAYERS, LLAMA_NAMES, QK_NORM_NAMES, attention_biases, decoder_keys, rope_factors


def _keys(c: Config) -> Keys:
    c.expect("hidden_act", "silu")
    return decoder_keys(c)


OLMO2 = Family(
    "olmo2",
    keys=_keys,
    names={
        **{stem: name for stem, name in LLAMA_NAMES.items() if stem != f"{LAYERS}input_layernorm"},
        **QK_NORM_NAMES,
        f"{LAYERS}post_attention_layernorm": "blk.{i}.post_attention_norm",
        f"{LAYERS}post_feedforward_layernorm": "blk.{i}.post_ffw_norm",
    },
    biases=attention_biases,
    extra=rope_factors,
)
