"""How a Hugging Face checkpoint of each family becomes a GGUF file: shapes, names, row order, metadata.

Written out for tests, independent of `converters/`, after llama.cpp's converter. `LAYOUTS` is the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Arrays = dict[str, Array]
Shape = tuple[int, ...]

# Shapes under Hugging Face names


def _head_dim(c: Mapping[str, Any]) -> int:
    return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]


def _llama_shapes(c: Mapping[str, Any]) -> dict[str, Shape]:
    d, ff, dim = c["hidden_size"], c["intermediate_size"], _head_dim(c)
    q, kv = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    family = c["model_type"]
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (c["vocab_size"], d), "model.norm.weight": (d,)}
    if not c.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (c["vocab_size"], d)
    linears = {"self_attn.q_proj": (q, d), "self_attn.k_proj": (kv, d), "self_attn.v_proj": (kv, d)}
    biased = set(linears) if family == "qwen2" or c.get("attention_bias") else set()
    linears["self_attn.o_proj"] = (d, q)
    if c.get("attention_bias"):
        biased.add("self_attn.o_proj")
    if family == "mixtral":
        linears["block_sparse_moe.gate"] = (c["num_local_experts"], d)
        for expert in range(c["num_local_experts"]):
            for name, shape in {"w1": (ff, d), "w2": (d, ff), "w3": (ff, d)}.items():
                linears[f"block_sparse_moe.experts.{expert}.{name}"] = shape
    elif family == "phi3":
        linears = {"self_attn.qkv_proj": (q + 2 * kv, d), "self_attn.o_proj": (d, q)}
        linears |= {"mlp.gate_up_proj": (2 * ff, d), "mlp.down_proj": (d, ff)}
    else:
        mlp = {"mlp.gate_proj": (ff, d), "mlp.up_proj": (ff, d), "mlp.down_proj": (d, ff)}
        biased |= set(mlp) if c.get("mlp_bias") else set()
        linears |= mlp
    norms = {"input_layernorm": d, "post_attention_layernorm": d}
    if family in ("qwen3", "gemma3_text"):
        norms |= {"self_attn.q_norm": dim, "self_attn.k_norm": dim}
    if family == "gemma3_text":
        norms |= {"pre_feedforward_layernorm": d, "post_feedforward_layernorm": d}
    for i in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{i}."
        shapes |= {f"{prefix}{name}.weight": shape for name, shape in linears.items()}
        shapes |= {f"{prefix}{name}.bias": (linears[name][0],) for name in sorted(biased)}
        shapes |= {f"{prefix}{name}.weight": (n,) for name, n in norms.items()}
    return shapes


def _gpt2_shapes(c: Mapping[str, Any]) -> dict[str, Shape]:
    d, ff = c["n_embd"], c["n_inner"]
    shapes: dict[str, Shape] = {
        "transformer.wte.weight": (c["vocab_size"], d),
        "transformer.wpe.weight": (c["n_positions"], d),
    }
    norms = ["transformer.ln_f"]
    for i in range(c["n_layer"]):
        prefix = f"transformer.h.{i}."
        norms += [f"{prefix}ln_1", f"{prefix}ln_2"]
        linears = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, ff), "mlp.c_proj": (ff, d)}
        for name, shape in linears.items():
            shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": (shape[1],)}
    return shapes | {f"{norm}.{role}": (d,) for norm in norms for role in ("weight", "bias")}


# Tensors under GGUF names

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
    "block_sparse_moe.gate": "ffn_gate_inp",
}
_GEMMA_NAMES = {
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
}
_GPT2_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
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


def _llama_tensors(c: Mapping[str, Any], weights: Arrays) -> Arrays:
    heads = {"q_proj": c["num_attention_heads"], "k_proj": c["num_key_value_heads"]}
    out = _rope_factors(c)
    for name, array in weights.items():
        projection = name.split(".")[-2]
        if ".experts.0." in name:
            stem, expert = name.split(".experts.0.")
            role = {"w1": "gate", "w2": "down", "w3": "up"}[expert.split(".")[0]]
            stack = [weights[f"{stem}.experts.{e}.{expert}"] for e in range(c["num_local_experts"])]
            out[f"blk.{stem.split('.')[2]}.ffn_{role}_exps.weight"] = np.stack(stack)
        elif ".experts." not in name:
            array = interleave(array, heads[projection]) if projection in heads else array
            out[_rename(name, _BLOCK_NAMES)] = array
    return out


def _plain_tensors(c: Mapping[str, Any], weights: Arrays) -> Arrays:
    return _rope_factors(c) | {_rename(name, _BLOCK_NAMES): array for name, array in weights.items()}


def _gemma_tensors(c: Mapping[str, Any], weights: Arrays) -> Arrays:
    names = _BLOCK_NAMES | _GEMMA_NAMES
    return {_rename(n, names): a + np.float32(1) if n.endswith("norm.weight") else a for n, a in weights.items()}


def _gpt2_tensors(c: Mapping[str, Any], weights: Arrays) -> Arrays:
    return {
        _rename(name, _GPT2_NAMES): array.T if ".c_" in name and array.ndim == 2 else array
        for name, array in weights.items()
    }


def _rope_factors(c: Mapping[str, Any]) -> Arrays:
    scaling = c.get("rope_scaling") or {}
    if scaling.get("rope_type") == "llama3":
        return {"rope_freqs.weight": llama3_factors(_head_dim(c), c["rope_theta"], scaling)}
    pairs = {f"rope_factors_{k}.weight": scaling.get(f"{k}_factor") for k in ("long", "short")}
    return {name: np.array(factors, np.float32) for name, factors in pairs.items() if factors}


def llama3_factors(n_rot: int, base: float, scaling: Mapping[str, Any]) -> Array:
    """What converters store for Llama 3: how much slower each pair turns."""
    context, low, high = (scaling[k] for k in LLAMA3_KEYS)
    turns = context * base ** -(np.arange(0, n_rot, 2) / n_rot) / (2 * math.pi)  # within the original context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / scaling["factor"] + smooth)).astype(np.float32)


LLAMA3_KEYS = ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")

# Metadata


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
    dim = _head_dim(c)
    out: dict[str, Any] = {
        "block_count": c["num_hidden_layers"],
        "context_length": c["max_position_embeddings"],
        "embedding_length": c["hidden_size"],
        "feed_forward_length": c["intermediate_size"],
        "attention.head_count": c["num_attention_heads"],
        "attention.head_count_kv": c["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": c["rms_norm_eps"],
        "rope.freq_base": c["rope_theta"],
        "rope.dimension_count": int(dim * c.get("partial_rotary_factor", 1.0)),
        "vocab_size": c["vocab_size"],
    }
    if "head_dim" in c:
        out |= {"attention.key_length": dim, "attention.value_length": dim}
    if "num_local_experts" in c:
        out |= {"expert_count": c["num_local_experts"], "expert_used_count": c["num_experts_per_tok"]}
    if c.get("sliding_window"):
        out["attention.sliding_window"] = c["sliding_window"]
    if "rope_local_base_freq" in c:
        out["rope.freq_base_swa"] = c["rope_local_base_freq"]
    if "final_logit_softcapping" in c:
        out["final_logit_softcapping"] = c["final_logit_softcapping"]
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


class Layout(NamedTuple):
    """The GGUF name of a family, the shapes of a checkpoint, and its tensors under GGUF names."""

    architecture: str
    shapes: Callable[[Mapping[str, Any]], dict[str, Shape]]
    tensors: Callable[[Mapping[str, Any], Arrays], Arrays]


LAYOUTS: dict[str, Layout] = {
    "llama": Layout("llama", _llama_shapes, _llama_tensors),
    "mistral": Layout("llama", _llama_shapes, _llama_tensors),
    "mixtral": Layout("llama", _llama_shapes, _llama_tensors),
    "qwen2": Layout("qwen2", _llama_shapes, _plain_tensors),
    "qwen3": Layout("qwen3", _llama_shapes, _plain_tensors),
    "gemma3_text": Layout("gemma3", _llama_shapes, _gemma_tensors),
    "phi3": Layout("phi3", _llama_shapes, _plain_tensors),
    "gpt2": Layout("gpt2", _gpt2_shapes, _gpt2_tensors),
}
