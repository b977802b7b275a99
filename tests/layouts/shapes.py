"""The tensors of a Hugging Face checkpoint of each family: names and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Shape = tuple[int, ...]


def head_dim(c: Mapping[str, Any]) -> int:
    return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]


def llama_shapes(c: Mapping[str, Any]) -> dict[str, Shape]:
    d, dim = c["hidden_size"], head_dim(c)
    q, kv = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    family, top_norm = c["model_type"], {"model.norm.weight": (d,)}
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (c["vocab_size"], d), **top_norm}
    if not c.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (c["vocab_size"], d)
    linears = {"self_attn.q_proj": (q, d), "self_attn.k_proj": (kv, d), "self_attn.v_proj": (kv, d)}
    biased = set(linears) if family in ("qwen2", "qwen2_moe") or c.get("attention_bias") else set()
    linears["self_attn.o_proj"] = (d, q)
    if c.get("attention_bias"):
        biased.add("self_attn.o_proj")
    if family == "phi3":
        linears = {"self_attn.qkv_proj": (q + 2 * kv, d), "self_attn.o_proj": (d, q)}
    mlp = _mlp_shapes(c)
    biased |= set(mlp) if c.get("mlp_bias") else set()
    linears |= mlp
    norms = _norm_sizes(family, d, dim, q, kv)
    if family == "starcoder2":
        biased = {*linears, *norms}
        shapes["model.norm.bias"] = (d,)
    for i in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{i}."
        shapes |= {f"{prefix}{name}.weight": shape for name, shape in linears.items()}
        shapes |= {f"{prefix}{name}.bias": (linears.get(name, (d,))[0],) for name in sorted(biased)}
        shapes |= {f"{prefix}{name}.weight": (n,) for name, n in norms.items()}
    return shapes


def _mlp_shapes(c: Mapping[str, Any]) -> dict[str, Shape]:
    d, ff, family = c["hidden_size"], c["intermediate_size"], c["model_type"]
    if family == "phi3":
        return {"mlp.gate_up_proj": (2 * ff, d), "mlp.down_proj": (d, ff)}
    if family == "starcoder2":
        return {"mlp.c_fc": (ff, d), "mlp.c_proj": (d, ff)}
    if family == "mixtral":
        gate, experts, names = "block_sparse_moe.gate", "block_sparse_moe.experts", ("w1", "w3", "w2")
        return {gate: (c["num_local_experts"], d), **_expert_shapes(experts, names, c["num_local_experts"], ff, d)}
    names = ("gate_proj", "up_proj", "down_proj")
    if family not in ("qwen2_moe", "qwen3_moe"):
        return _gated_shapes("mlp", names, ff, d)
    shapes = {"mlp.gate": (c["num_experts"], d)}
    shapes |= _expert_shapes("mlp.experts", names, c["num_experts"], c["moe_intermediate_size"], d)
    if family == "qwen2_moe":
        shapes["mlp.shared_expert_gate"] = (1, d)
        shapes |= _gated_shapes("mlp.shared_expert", names, c["shared_expert_intermediate_size"], d)
    return shapes


def _gated_shapes(prefix: str, names: Sequence[str], ff: int, d: int) -> dict[str, Shape]:
    return {f"{prefix}.{name}": shape for name, shape in zip(names, ((ff, d), (ff, d), (d, ff)), strict=True)}


def _expert_shapes(prefix: str, names: Sequence[str], count: int, ff: int, d: int) -> dict[str, Shape]:
    parts = (_gated_shapes(f"{prefix}.{expert}", names, ff, d) for expert in range(count))
    return {name: shape for part in parts for name, shape in part.items()}


def _norm_sizes(family: str, d: int, dim: int, q: int, kv: int) -> dict[str, int]:
    if family == "olmo2":
        of_heads = {"self_attn.q_norm": q, "self_attn.k_norm": kv}
        return {"post_attention_layernorm": d, "post_feedforward_layernorm": d, **of_heads}
    norms = {"input_layernorm": d, "post_attention_layernorm": d}
    if family in ("qwen3", "qwen3_moe", "gemma3_text"):
        norms |= {"self_attn.q_norm": dim, "self_attn.k_norm": dim}
    if family in ("gemma2", "gemma3_text"):
        norms |= {"pre_feedforward_layernorm": d, "post_feedforward_layernorm": d}
    return norms


def gptneox_shapes(c: Mapping[str, Any]) -> dict[str, Shape]:
    d, ff, vocabulary = c["hidden_size"], c["intermediate_size"], (c["vocab_size"], c["hidden_size"])
    shapes: dict[str, Shape] = {"gpt_neox.embed_in.weight": vocabulary, "embed_out.weight": vocabulary}
    norms = ["gpt_neox.final_layer_norm"]
    linears = {"attention.query_key_value": (3 * d, d), "attention.dense": (d, d)}
    linears |= {"mlp.dense_h_to_4h": (ff, d), "mlp.dense_4h_to_h": (d, ff)}
    for i in range(c["num_hidden_layers"]):
        prefix = f"gpt_neox.layers.{i}."
        norms += [f"{prefix}input_layernorm", f"{prefix}post_attention_layernorm"]
        for name, shape in linears.items():
            shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
    return shapes | {f"{norm}.{role}": (d,) for norm in norms for role in ("weight", "bias")}


def gpt2_shapes(c: Mapping[str, Any]) -> dict[str, Shape]:
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
