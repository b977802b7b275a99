"""Qwen 1.5 with experts, 2, 2.5 and 3."""

from __future__ import annotations

from ..config import Config
from .family import Family, Keys
from .shared import (
    ATTENTION,
    EXPERT_NAMES,
    EXPERT_SPLITS,
    LAYERS,
    LLAMA_NAMES,
    QK_NORM_NAMES,
    attention_biases,
    decoder_keys,
    rope_factors,
)

_SHARED_EXPERT = {
    f"{LAYERS}mlp.shared_expert_gate": "blk.{i}.ffn_gate_inp_shexp",
    f"{LAYERS}mlp.shared_expert.gate_proj": "blk.{i}.ffn_gate_shexp",
    f"{LAYERS}mlp.shared_expert.up_proj": "blk.{i}.ffn_up_shexp",
    f"{LAYERS}mlp.shared_expert.down_proj": "blk.{i}.ffn_down_shexp",
}


def _keys(c: Config) -> Keys:
    c.expect("hidden_act", "silu")
    c.expect("use_sliding_window", False)
    return decoder_keys(c)


def _expert_keys(c: Config) -> Keys:
    c.expect("decoder_sparse_step", 1)  # every layer has experts
    c.expect("mlp_only_layers", [])
    return _keys(c) | {
        "expert_count": c.count("num_experts", "num_local_experts"),
        "expert_used_count": c.count("num_experts_per_tok"),
        "expert_feed_forward_length": c.count("moe_intermediate_size"),
    }


# Whether the weights of the experts used add up to one is not in the file: it follows from the architecture.
def _qwen2moe_keys(c: Config) -> Keys:
    c.expect("norm_topk_prob", False)
    width = c.count("shared_expert_intermediate_size")
    return _expert_keys(c) | {"expert_shared_feed_forward_length": width}


def _qwen3moe_keys(c: Config) -> Keys:
    if not c.flag("norm_topk_prob", default=False):
        raise c.refuse("norm_topk_prob", False, "true")
    return _expert_keys(c)


def _biases(c: Config) -> tuple[str, ...]:
    return ATTENTION[:3] if c.flag("qkv_bias", default=True) else ()


QWEN2 = Family("qwen2", keys=_keys, names=LLAMA_NAMES, biases=lambda c: ATTENTION[:3], extra=rope_factors)
QWEN3 = Family(
    "qwen3", keys=_keys, names=LLAMA_NAMES | QK_NORM_NAMES, biases=attention_biases, extra=rope_factors
)  # fmt: skip
QWEN2MOE = Family(
    "qwen2moe",
    keys=_qwen2moe_keys,
    names=LLAMA_NAMES | EXPERT_NAMES | _SHARED_EXPERT,
    splits=EXPERT_SPLITS,
    biases=_biases,
    extra=rope_factors,
)
QWEN3MOE = Family(
    "qwen3moe",
    keys=_qwen3moe_keys,
    names=LLAMA_NAMES | QK_NORM_NAMES | EXPERT_NAMES,
    splits=EXPERT_SPLITS,
    biases=attention_biases,
    extra=rope_factors,
)
