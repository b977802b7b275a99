"""The metadata of the GGUF file, without the architecture in front."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .encoders import bert_metadata
from .shapes import head_dim

_FURTHER_KEYS = {
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "rope_local_base_freq": "rope.freq_base_swa",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}


def metadata(c: Mapping[str, Any]) -> dict[str, Any]:
    if c["model_type"] == "gpt2":
        return {
            "block_count": c["n_layer"],
            "context_length": c["n_positions"],
            "embedding_length": c["n_embd"],
            "feed_forward_length": c["n_inner"],
            "attention.head_count": c["n_head"],
            "attention.layer_norm_epsilon": c["layer_norm_epsilon"],
        }
    if c["model_type"] in ("bert", "roberta"):
        return bert_metadata(c)
    dim, family = head_dim(c), c["model_type"]
    out: dict[str, Any] = {
        "block_count": c["num_hidden_layers"],
        "context_length": c["max_position_embeddings"],
        "embedding_length": c["hidden_size"],
        "feed_forward_length": c["intermediate_size"],
        "attention.head_count": c["num_attention_heads"],
        "rope.freq_base": c["rope_theta"],
        "rope.dimension_count": int(dim * c.get("partial_rotary_factor", 1.0)),
        "vocab_size": c["vocab_size"],
    }
    if family == "gpt_neox":
        turning = {"rope.freq_base": float(c["rotary_emb_base"]), "rope.dimension_count": int(dim * c["rotary_pct"])}
        return out | {
            **turning,
            "attention.layer_norm_epsilon": c["layer_norm_eps"],
            "use_parallel_residual": c["use_parallel_residual"],
        }
    out["attention.head_count_kv"] = c["num_key_value_heads"]
    if family == "starcoder2":
        out["attention.layer_norm_epsilon"] = c["norm_epsilon"]
    else:
        out["attention.layer_norm_rms_epsilon"] = c["rms_norm_eps"]
    if "head_dim" in c:
        out |= {"attention.key_length": dim, "attention.value_length": dim}
    if "num_experts_per_tok" in c:
        count = c["num_local_experts" if family == "mixtral" else "num_experts"]
        out |= {"expert_count": count, "expert_used_count": c["num_experts_per_tok"]}
    for name, key in _FURTHER_KEYS.items():
        if name in c:
            out[key] = c[name]
    if family.startswith("gemma") and c.get("query_pre_attn_scalar", dim) != dim:
        out["attention.scale"] = 1 / math.sqrt(c["query_pre_attn_scalar"])
    if c.get("sliding_window"):
        out["attention.sliding_window"] = c["sliding_window"]
    return out | _scaling_metadata(c)


def _scaling_metadata(c: Mapping[str, Any]) -> dict[str, Any]:
    scaling = c.get("rope_scaling") or {}
    kind = scaling.get("rope_type")
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": scaling["factor"]}
    if kind == "yarn":
        keys = {"factor": "factor", "original_max_position_embeddings": "original_context_length"}
        keys |= {"beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow", "attention_factor": "yarn_attn_factor"}
        scaled = {f"rope.scaling.{key}": scaling[name] for name, key in keys.items() if name in scaling}
        return {"rope.scaling.type": "yarn", **scaled}
    if kind == "longrope":
        original = c["original_max_position_embeddings"]
        growth = c["max_position_embeddings"] / original
        magnitude = math.sqrt(1 + math.log(growth) / math.log(original)) if growth > 1 else 1.0
        return {"rope.scaling.original_context_length": original, "rope.scaling.attn_factor": magnitude}
    return {}
