"""StarCoder 2: Llama's attention, GPT-2's norms and MLP."""

from __future__ import annotations

from ..config import Config
from .family import Family, Keys
from .shared import ATTENTION, LAYERS, LLAMA_NAMES, decoder_keys, rope_factors


def _keys(c: Config) -> Keys:
    c.expect("hidden_act", "gelu_pytorch_tanh")
    keys = decoder_keys(c, layer_norm_eps="norm_epsilon")
    if "sliding_window" in c:
        keys["attention.sliding_window"] = c.count("sliding_window")
    return keys


def _biases(c: Config) -> tuple[str, ...]:
    return (*ATTENTION, "blk.{i}.ffn_up", "blk.{i}.ffn_down") if c.flag("use_bias", default=True) else ()


STARCODER2 = Family(
    "starcoder2",
    keys=_keys,
    names={
        **{stem: name for stem, name in LLAMA_NAMES.items() if ".mlp." not in stem},
        f"{LAYERS}mlp.c_fc": "blk.{i}.ffn_up",
        f"{LAYERS}mlp.c_proj": "blk.{i}.ffn_down",
    },
    biases=_biases,
    is_tied=True,
    extra=rope_factors,
)
