"""Models that are all shape, one for each rule of the recipes: matrices of two rows, with names that the rules look at.

tests/fixtures/recipes.json holds what llama.cpp makes of them (see fixtures/make/recipes.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter

LAYERS = 17  # an eighth and a sixteenth of them are one or two
DENSE = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
EXPERTS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
# Names that are kept, or nearly called like them.
KEPT = (
    "ffn_gate_inp", "ffn_gate_inp_shexp", "ffn_gate_tid2eid", "altup_proj", "laurel_l", "per_layer_model_proj",
    "ssm_conv1d", "ssm_in", "shortconv.conv", "shortconv.in_proj", "indexer.k_proj", "indexer.q_proj", "indexer.proj",
    "time_mix_first", "time_mix_w0", "time_mix_v1", "time_mix_a2", "time_mix_g1", "time_mix_decay_w1", "time_mix_key",
    "time_mix_lerp_fused", "attn_rel_b", "attn_q_norm", "hc_attn_fn", "attn_q_a", "attn_k_b",
)
GLM = (
    "attn_q_a", "attn_q_b", "attn_kv_a_mqa", "attn_k_b", "attn_v_b", "attn_output", "hc_attn_fn", "indexer.attn_q_b",
    "indexer.attn_k", "indexer.proj", "indexer_compressor_gate", "indexer_compressor_ape", "ssm_f_a", "ssm_f_b",
    "ssm_g_a", "ssm_g_b", "ssm_beta", "ssm_in", "nextn.eh_proj", "ffn_down", "ffn_gate_exps", "ffn_down_exps",
)
LATENT: dict[str, Any] = {
    "attention.key_length_mla": 32, "attention.value_length_mla": 32, "attention.q_lora_rank": 32,
    "attention.kv_lora_rank": 32, "ssm.conv_kernel": 4, "kda.head_dim": 32, "kda.gate_lower_bound": -1.0,
    "expert_feed_forward_length": 32, "expert_shared_count": 1, "leading_dense_block_count": 1, "expert_gating_func": 2,
}
INDEXER = {
    "attention.indexer.head_count": 1, "attention.indexer.key_length": 32, "attention.indexer.top_k": 4,
    "attention.indexer.kpool": 2,
}
MODELS: dict[str, dict[str, Any]] = {
    "alone": {"heads": 8, "kv": 8, "output": True},
    "shared": {"heads": 32, "kv": 4, "output": False},
    "seventy": {"heads": 8, "kv": 4, "layers": 80, "output": True, "names": ("attn_v", "attn_k")},
    "eight": {"heads": 8, "kv": 4, "experts": 8, "output": True},
    "sixteen": {"heads": 8, "kv": 8, "experts": 16, "output": True},
    "falcon": {
        "architecture": "falcon", "heads": 8, "kv": 8, "output": True,
        "names": ("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
    },
    "embedder": {
        "architecture": "llama-embed", "heads": 8, "kv": 4, "layers": 80, "output": True, "names": ("attn_v",),
    },
    "hybrid": {"heads": [8] * 9, "kv": [0, 4] * 4 + [4], "layers": 9, "output": True},  # the first has no keys
    "sharing": {"heads": [8] * 9, "kv": [2] * 9, "layers": 9, "output": True},
    "loops": {"architecture": "nanbeige", "heads": 8, "kv": 8, "layers": 9, "output": True, "keys": {"num_loops": 2}},
    "router": {
        "architecture": "graniteswitch", "heads": 8, "kv": 8, "layers": 15, "output": True,
        "keys": {
            "logit_scale": 1.0, "adapters.count": 1, "adapters.lora_rank": 1, "adapters.token_ids_activate": [1],
            "adapters.token_ids_substitute": [2],
        },
    },
    "kept": {
        "heads": 8, "kv": 8, "layers": 1, "output": False, "names": KEPT, "others": ("position_embd", "token_types"),
    },
    "glm": {
        "architecture": "glm5-next", "heads": 8, "kv": 8, "layers": 8, "experts": 16, "output": True, "names": GLM,
        "keys": {**LATENT, **INDEXER, "hyper_connection.count": 4, "hyper_connection.sinkhorn_iterations": 1,
                 "hyper_connection.epsilon": 1e-6},
    },
    "bailing": {
        "architecture": "bailingmoe3", "heads": 8, "kv": 8, "layers": 8, "experts": 16, "output": True,
        "names": (*EXPERTS, "attn_k_b", "attn_v_b", "attn_kv_b"), "cubes": ("attn_k_b", "attn_v_b"), "keys": LATENT,
    },
    "odd": {"heads": 8, "kv": 8, "cols": 288, "output": True},
    "narrow": {"heads": 8, "kv": 8, "cols": 40, "output": False},
}  # fmt: skip


def write(path: Path, model: str, *, backwards: bool = False, split_counts: Sequence[int] | None = None) -> None:
    """The model as GGUF in F16. `backwards`: with its tensors in the opposite order."""
    about = MODELS[model]
    architecture, cols, experts = about.get("architecture", "llama"), about.get("cols", 256), about.get("experts", 0)
    layers = about.get("layers", LAYERS)
    writer = GGUFWriter(path, split_counts=split_counts)
    writer.add("general.architecture", architecture)
    for key, value in {
        "context_length": 64, "embedding_length": cols, "block_count": layers, "feed_forward_length": 256,
        "attention.head_count": about["heads"], "attention.head_count_kv": about["kv"],
        **({"expert_count": experts, "expert_used_count": 2} if experts else {}), **about.get("keys", {}),
    }.items():  # fmt: skip
        writer.add(f"{architecture}.{key}", value)
    for key in ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"):
        writer.add(f"{architecture}.{key}", 1e-5)
    tensors = {"token_embd.weight": (4, cols), "output_norm.weight": (cols,), "blk.0.attn_norm.weight": (cols,)}
    for name in ("output",) * about["output"] + about.get("others", ()):
        tensors[f"{name}.weight"] = (4, cols)
    for layer in range(layers):
        for name in about.get("names", EXPERTS if experts else DENSE):
            is_cube = name.endswith("_exps") or name in about.get("cubes", ())
            tensors[f"blk.{layer}.{name}.weight"] = (experts, 2, cols) if is_cube else (2, cols)
    if backwards:
        tensors = dict(reversed(tensors.items()))
    for name, shape in tensors.items():
        writer.add_tensor(name, shape, GGMLType.F16 if len(shape) > 1 else GGMLType.F32)
    rng = np.random.default_rng(len(model))
    with writer.open():
        for name, shape in tensors.items():
            values = rng.standard_normal(shape).astype(np.float16 if len(shape) > 1 else np.float32)
            writer.write_tensor(name, values)


def by_kind(types: dict[str, str]) -> dict[str, dict[str, str]]:
    """Types of tensors, short: kind of tensor -> type -> the layers of that kind that have it."""
    found: dict[str, dict[str, str]] = {}
    for name, type_ in types.items():
        layer, kind = name.split(".")[1:3] if name.startswith("blk.") else ("", name)
        of_kind = found.setdefault(kind, {})
        of_kind[type_] = f"{of_kind.get(type_, '')} {layer}".strip()
    return found


def importance_of(path: Path) -> dict[str, np.ndarray]:
    """Something for every column of every matrix, float32 [experts * cols]; with zeros among it."""
    with GGUFFile.open(path) as file:
        shapes = {name: tensor.ne for name, tensor in file.tensors.items() if len(tensor.ne) > 1}
    found = {}
    for name, ne in shapes.items():
        size = ne[0] * (ne[2] if len(ne) > 2 else 1)
        found[name] = ((np.arange(size) * 7919 % 101) / 50).astype(np.float32)
    return found
