"""Llama 1 to 3, Mistral, SmolLM, TinyLlama, Yi, and Mixtral: one architecture."""

from __future__ import annotations

from ...formats.errors import UnsupportedError
from ..config import Config
from .family import Family, Keys
from .shared import (
    EXPERT_NAMES,
    EXPERT_SPLITS,
    LAYERS,
    LLAMA_NAMES,
    attention_biases,
    decoder_keys,
    head_dim,
    interleaved,
    rope_factors,
    rope_parameters,
)

_EXPERTS = f"{LAYERS}block_sparse_moe.experts.{{e}}."


def _keys(c: Config) -> Keys:
    c.expect("hidden_act", "silu")
    keys = decoder_keys(c, rope=_rope(c))
    if (n_rot := keys["rope.dimension_count"]) != (whole := head_dim(c)):  # transformers rotates all, whatever it says
        raise c.refuse("partial_rotary_factor", n_rot / whole, "1")
    keys |= {"attention.key_length": whole, "attention.value_length": whole}  # llama.cpp writes them always
    keys |= _window(c, keys["block_count"])
    if "num_local_experts" in c:
        keys |= {"expert_count": c.count("num_local_experts"), "expert_used_count": c.count("num_experts_per_tok")}
    return keys


def _rope(c: Config) -> Config:
    """Rotation. Where config.json says no base, that of Mixtral is another than of the rest."""
    rope = rope_parameters(c)
    return rope.having({"rope_theta": 1e6, **rope.fields}) if c.fields.get("model_type") == "mixtral" else rope


def _window(c: Config, n_layer: int) -> Keys:
    """Llama has none, whatever config.json says. Mistral has one unless that says null, or that all layers see all."""
    model_type = c.fields.get("model_type")
    if model_type == "llama" or (model_type == "mistral" and _all_see_all(c, n_layer)):
        return {}
    if "sliding_window" in c:
        return {"attention.sliding_window": c.count("sliding_window")}
    is_unsaid = model_type == "mistral" and "sliding_window" not in c.fields
    return {"attention.sliding_window": 4096} if is_unsaid else {}


def _all_see_all(c: Config, n_layer: int) -> bool:
    """By `layer_types`, which transformers follows. Files of this architecture have one window for all layers."""
    kinds = c.fields.get("layer_types")
    if kinds is None or kinds == ["sliding_attention"] * n_layer:
        return False
    if kinds == ["full_attention"] * n_layer:
        return True
    raise UnsupportedError(f"{c.path}, 'layer_types': layers with and without a window in one model are not supported")


def _biases(c: Config) -> tuple[str, ...]:
    if c.fields.get("model_type") != "llama":  # others have these fields from a Llama that they were made of
        return ()
    of_mlp = ("blk.{i}.ffn_gate", "blk.{i}.ffn_up", "blk.{i}.ffn_down")
    return attention_biases(c) + (of_mlp if c.flag("mlp_bias", default=False) else ())


LLAMA = Family(
    "llama",
    keys=_keys,
    names={
        **LLAMA_NAMES,
        **EXPERT_NAMES,
        f"{LAYERS}block_sparse_moe.gate": "blk.{i}.ffn_gate_inp",
        f"{_EXPERTS}w1": "blk.{i}.ffn_gate_exps",
        f"{_EXPERTS}w2": "blk.{i}.ffn_down_exps",
        f"{_EXPERTS}w3": "blk.{i}.ffn_up_exps",
    },
    changes={
        "blk.{i}.attn_q": interleaved("num_attention_heads"),
        "blk.{i}.attn_k": interleaved("num_key_value_heads"),
    },
    splits=EXPERT_SPLITS,
    biases=_biases,
    extra=lambda c: rope_factors(c, _rope(c)),
)
