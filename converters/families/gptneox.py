"""GPT-NeoX and Pythia, whose queries, keys and values are stored head by head."""

from __future__ import annotations

from ..config import Config
from .family import Family, Keys
from .shared import decoder_keys, regrouped, rope_factors, rope_parameters

_LAYERS = "gpt_neox.layers.{i}."


def _keys(c: Config) -> Keys:
    # The graph has the exact gelu; gelu_fast, of GPT-NeoX 20B, is off by less than 5e-4, and files cannot say it.
    c.expect("hidden_act", "gelu", "gelu_fast")
    return {
        **decoder_keys(c, layer_norm_eps="layer_norm_eps", rope=_rope(c)),
        "attention.head_count_kv": c.count("num_attention_heads"),  # heads never share keys, whatever a field may say
        "use_parallel_residual": c.flag("use_parallel_residual", default=True),
    }


def _rope(c: Config) -> Config:
    """Rotation, with the two fields that say it before transformers 5."""
    old = {
        "rope_theta": c.number("rotary_emb_base", default=10_000.0),
        "partial_rotary_factor": c.number("rotary_pct", default=0.25),
    }
    rope = rope_parameters(c)
    if "rotary_emb_base" in c and rope.fields.get("rope_theta", old["rope_theta"]) != old["rope_theta"]:
        raise c.refuse("rotary_emb_base", old["rope_theta"], f"{rope.fields['rope_theta']}, which rope_theta says")
    return rope.having({**old, **rope.fields})


def _biases(c: Config) -> tuple[str, ...]:
    of_attention = ("blk.{i}.attn_qkv", "blk.{i}.attn_output") if c.flag("attention_bias", default=True) else ()
    return (*of_attention, "blk.{i}.ffn_up", "blk.{i}.ffn_down")


GPTNEOX = Family(
    "gptneox",
    keys=_keys,
    names={
        "gpt_neox.embed_in": "token_embd",
        "gpt_neox.final_layer_norm": "output_norm",
        "embed_out": "output",
        "lm_head": "output",  # as transformers 5 calls it
        f"{_LAYERS}input_layernorm": "blk.{i}.attn_norm",
        f"{_LAYERS}attention.query_key_value": "blk.{i}.attn_qkv",
        f"{_LAYERS}attention.dense": "blk.{i}.attn_output",
        f"{_LAYERS}post_attention_layernorm": "blk.{i}.ffn_norm",
        f"{_LAYERS}mlp.dense_h_to_4h": "blk.{i}.ffn_up",
        f"{_LAYERS}mlp.dense_4h_to_h": "blk.{i}.ffn_down",
    },
    # From query, key and value of each head to all queries, all keys, all values.
    changes={"blk.{i}.attn_qkv": regrouped("num_attention_heads", 3, (0, 1))},
    biases=_biases,
    extra=lambda c: rope_factors(c, _rope(c)),
    ignored=(r"\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$",),
)
