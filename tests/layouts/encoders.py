"""BERT and RoBERTa: shapes, tensors and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .shapes import Shape
from .tensors import Arrays

_TOP_NAMES = {
    "word_embeddings": "token_embd",
    "position_embeddings": "position_embd",
    "token_type_embeddings": "token_types",
    "LayerNorm": "token_embd_norm",
}
_BLOCK_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def bert_shapes(c: Mapping[str, Any]) -> dict[str, Shape]:
    d, ff = c["hidden_size"], c["intermediate_size"]
    shapes: dict[str, Shape] = {
        "embeddings.word_embeddings.weight": (c["vocab_size"], d),
        "embeddings.position_embeddings.weight": (c["max_position_embeddings"], d),
        "embeddings.token_type_embeddings.weight": (c["type_vocab_size"], d),
    }
    norms = ["embeddings.LayerNorm"]
    for i in range(c["num_hidden_layers"]):
        prefix = f"encoder.layer.{i}."
        norms += [f"{prefix}attention.output.LayerNorm", f"{prefix}output.LayerNorm"]
        linears = {f"attention.self.{name}": (d, d) for name in ("query", "key", "value")}
        linears |= {"attention.output.dense": (d, d), "intermediate.dense": (ff, d), "output.dense": (d, ff)}
        for name, shape in linears.items():
            shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
    return shapes | {f"{norm}.{role}": (d,) for norm in norms for role in ("weight", "bias")}


def bert_tensors(c: Mapping[str, Any], weights: Arrays) -> Arrays:
    tensors = {_renamed(name): array for name, array in weights.items()}
    tensors["position_embd.weight"] = tensors["position_embd.weight"][_unused_positions(c) :]
    return tensors


def bert_metadata(c: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "block_count": c["num_hidden_layers"],
        "context_length": c["max_position_embeddings"] - _unused_positions(c),
        "embedding_length": c["hidden_size"],
        "feed_forward_length": c["intermediate_size"],
        "attention.head_count": c["num_attention_heads"],
        "attention.layer_norm_epsilon": c["layer_norm_eps"],
        "attention.causal": False,
    }


def _renamed(name: str) -> str:
    stem, role = name.rsplit(".", 1)
    if stem.startswith("embeddings."):
        return f"{_TOP_NAMES[stem.removeprefix('embeddings.')]}.{role}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{_BLOCK_NAMES[rest]}.{role}"


def _unused_positions(c: Mapping[str, Any]) -> int:
    """Positions of RoBERTa begin behind that of the padding."""
    return c["pad_token_id"] + 1 if c["model_type"] == "roberta" else 0
