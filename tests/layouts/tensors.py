"""The same tensors as a GGUF file has them: names, order of rows, stacks of experts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .shapes import head_dim

Array = NDArray[np.float32]
Arrays = dict[str, Array]

_BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "block_sparse_moe.gate": "ffn_gate_inp",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
}
_POST_NORM_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_TOP_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "gpt_neox.embed_in": "token_embd",
    "gpt_neox.final_layer_norm": "output_norm",
    "embed_out": "output",
}
_GPT2_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_GPTNEOX_NAMES = {
    "input_layernorm": "attn_norm",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}


def _rename(name: str, block_names: Mapping[str, str]) -> str:
    stem, role = name.rsplit(".", 1)
    if stem in _TOP_NAMES:
        return f"{_TOP_NAMES[stem]}.{role}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{block_names[rest]}.{role}"


def interleave(rows: Array, n_head: int) -> Array:
    """Reorder the rows of each head from halves to neighbouring pairs, as llama files have them."""
    halves = rows.reshape(n_head, 2, len(rows) // n_head // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def llama_tensors(c: Mapping[str, Any], weights: Arrays) -> Arrays:
    heads = {"q_proj": c["num_attention_heads"], "k_proj": c["num_key_value_heads"]}
    turned = {
        name: interleave(array, heads[projection]) if (projection := name.split(".")[-2]) in heads else array
        for name, array in weights.items()
    }
    return plain_tensors(c, turned)


_EXPERT_ROLES = {"w1": "gate", "w2": "down", "w3": "up"}


def plain_tensors(c: Mapping[str, Any], weights: Arrays, names: Mapping[str, str] = _BLOCK_NAMES) -> Arrays:
    out, n_expert = _rope_factors(c), c.get("num_experts") or c.get("num_local_experts", 0)
    for name, array in weights.items():
        if ".experts." not in name:
            out[_rename(name, names)] = array
        elif ".experts.0." in name:
            stem, matrix = name.split(".experts.0.")
            role = matrix.split(".")[0].removesuffix("_proj")
            each = [weights[f"{stem}.experts.{e}.{matrix}"] for e in range(n_expert)]
            out[f"blk.{stem.split('.')[2]}.ffn_{_EXPERT_ROLES.get(role, role)}_exps.weight"] = np.stack(each)
    return out


def post_norm_tensors(c: Mapping[str, Any], weights: Arrays) -> Arrays:
    return plain_tensors(c, weights, _BLOCK_NAMES | _POST_NORM_NAMES)


def gemma_tensors(c: Mapping[str, Any], weights: Arrays) -> Arrays:
    plain = {name: a + np.float32(1) if name.endswith("norm.weight") else a for name, a in weights.items()}
    return plain_tensors(c, plain) if c["model_type"] == "gemma" else post_norm_tensors(c, plain)


def gptneox_tensors(c: Mapping[str, Any], weights: Arrays) -> Arrays:
    """Rows of query, key and value of each head become all queries, all keys, all values."""
    n_head, out = c["num_attention_heads"], plain_tensors(c, weights, _GPTNEOX_NAMES)
    for name, array in out.items():
        if "attn_qkv" in name:
            by_head = array.reshape(n_head, 3, -1, *array.shape[1:])
            out[name] = np.concatenate([by_head[:, part].reshape(-1, *array.shape[1:]) for part in range(3)])
    return out


def gpt2_tensors(c: Mapping[str, Any], weights: Arrays) -> Arrays:
    return {
        _rename(name, _GPT2_NAMES): array.T if ".c_" in name and array.ndim == 2 else array
        for name, array in weights.items()
    }


def _rope_factors(c: Mapping[str, Any]) -> Arrays:
    scaling = c.get("rope_scaling") or {}
    if scaling.get("rope_type") == "llama3":
        return {"rope_freqs.weight": llama3_factors(head_dim(c), c["rope_theta"], scaling)}
    pairs = {f"rope_factors_{k}.weight": scaling.get(f"{k}_factor") for k in ("long", "short")}
    return {name: np.array(factors, np.float32) for name, factors in pairs.items() if factors}


def llama3_factors(n_rot: int, base: float, scaling: Mapping[str, Any]) -> Array:
    """What converters store for Llama 3: how much slower each pair turns."""
    context, low, high = (scaling[k] for k in LLAMA3_KEYS)
    turns = context * base ** -(np.arange(0, n_rot, 2) / n_rot) / (2 * math.pi)  # within the original context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / scaling["factor"] + smooth)).astype(np.float32)


LLAMA3_KEYS = ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
