"""Models that are all shape, one for each rule of the recipes: matrices of two rows, with names that the rules look at.

tests/fixtures/recipes.json holds what llama.cpp makes of them (see fixtures/make/recipes.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter

LAYERS = 17  # an eighth and a sixteenth of them are one or two
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
    "odd": {"heads": 8, "kv": 8, "cols": 288, "output": True},
    "narrow": {"heads": 8, "kv": 8, "cols": 40, "output": False},
}  # fmt: skip
DENSE = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
EXPERTS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")


def write(path: Path, model: str) -> None:
    """The model as GGUF in F16."""
    about = MODELS[model]
    architecture, cols, experts = about.get("architecture", "llama"), about.get("cols", 256), about.get("experts", 0)
    layers = about.get("layers", LAYERS)
    writer = GGUFWriter(path)
    writer.add("general.architecture", architecture)
    for key, value in {
        "context_length": 64, "embedding_length": cols, "block_count": layers, "feed_forward_length": 256,
        "attention.head_count": about["heads"], "attention.head_count_kv": about["kv"],
        **({"expert_count": experts, "expert_used_count": 2} if experts else {}),
    }.items():  # fmt: skip
        writer.add(f"{architecture}.{key}", value)
    for key in ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"):
        writer.add(f"{architecture}.{key}", 1e-5)
    tensors = {"token_embd.weight": (4, cols), "output_norm.weight": (cols,), "blk.0.attn_norm.weight": (cols,)}
    if about["output"]:
        tensors["output.weight"] = (4, cols)
    for layer in range(layers):
        for name in about.get("names", EXPERTS if experts else DENSE):
            shape = (experts, 2, cols) if name.endswith("_exps") else (2, cols)
            tensors[f"blk.{layer}.{name}.weight"] = shape
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
