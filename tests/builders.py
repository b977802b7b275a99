"""Tiny random models of every family, in two forms made from the same weights: Hugging Face names, and a GGUF file.

A case is a Hugging Face configuration. Its weights come from NumPy generators seeded by case and tensor name, so that
only the logits of transformers have to be stored (tests/fixtures/families, made by tests/fixtures/make/families.py).
Dimensions differ pairwise and are awkward, norms and biases are random: a wrong layout cannot cancel.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from halfbyte.formats.gguf import GGMLType, GGUFWriter, ValueType
from numpy.typing import NDArray

Array = NDArray[np.float32]
Arrays = dict[str, Array]
Shape = tuple[int, ...]
N_TOKENS = 37  # more than a page of the cache and than every window below


@dataclass(frozen=True)
class Case:
    """A tiny model: the content of its config.json. `metadata` are further keys of the GGUF file."""

    name: str
    config: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        """The GGUF name of the family."""
        return _FAMILIES[self.config["model_type"]][0]

    def tokens(self) -> NDArray[np.int32]:
        return np.random.default_rng(_seed(self.name, "tokens")).integers(
            0, self.config["vocab_size"], N_TOKENS, np.int32
        )

    def weights(self) -> Arrays:
        """Random weights under Hugging Face names, float32."""
        shapes = _FAMILIES[self.config["model_type"]][1](self.config)
        return {name: _random(self.name, name, shape) for name, shape in shapes.items()}


def write_gguf(case: Case, path: Path, *, change: Callable[[dict[str, Any], Arrays], None] | None = None) -> Path:
    """Write the case as llama.cpp's converter would. `change` may edit metadata and tensors first."""
    metadata, tensors = to_gguf(case)
    if change is not None:
        change(metadata, tensors)
    return write(metadata, tensors, path)


def write(metadata: Mapping[str, Any], tensors: Mapping[str, Array], path: Path) -> Path:
    """Write a float32 GGUF file. A NumPy float64 stays one, other floats become float32."""
    writer = GGUFWriter(path)
    for key, value in metadata.items():
        writer.add(key, value, ValueType.FLOAT64 if isinstance(value, np.float64) else None)
    for name, array in tensors.items():
        writer.add_tensor(name, array.shape, GGMLType.F32)
    with writer.open():
        for name, array in tensors.items():
            writer.write_tensor(name, np.ascontiguousarray(array))
    return path


def to_gguf(case: Case) -> tuple[dict[str, Any], Arrays]:
    """Metadata and tensors of the GGUF file."""
    architecture, _, tensors = _FAMILIES[case.config["model_type"]]
    scoped = {f"{architecture}.{key}": value for key, value in _metadata(case.config).items()}
    general = {"general.architecture": architecture, "general.name": case.name}
    return {**general, **scoped}, tensors(case.config, case.weights())


def _seed(*names: str) -> list[int]:
    return [zlib.crc32(name.encode()) for name in names]


def _random(case: str, name: str, shape: Shape) -> Array:
    rng = np.random.default_rng(_seed(case, name))
    if len(shape) == 1:
        bias = name.endswith(".bias")
        return (rng.normal(0, 0.3, shape) if bias else rng.uniform(0.5, 1.5, shape)).astype(np.float32)
    fan_in = shape[0] if ".c_" in name else shape[-1]  # GPT-2 stores its matrices transposed
    embedding = "embed" in name or "wte" in name or "wpe" in name
    return rng.normal(0, 0.7 if embedding else 1.3 / math.sqrt(fan_in), shape).astype(np.float32)


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
    context, low, high = (scaling[k] for k in _LLAMA3_KEYS)
    turns = context * base ** -(np.arange(0, n_rot, 2) / n_rot) / (2 * math.pi)  # within the original context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / scaling["factor"] + smooth)).astype(np.float32)


_LLAMA3_KEYS = ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")

# Metadata


def _metadata(c: Mapping[str, Any]) -> dict[str, Any]:
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


_FAMILIES: dict[str, tuple[str, Callable[..., dict[str, Shape]], Callable[..., Arrays]]] = {
    "llama": ("llama", _llama_shapes, _llama_tensors),
    "mistral": ("llama", _llama_shapes, _llama_tensors),
    "mixtral": ("llama", _llama_shapes, _llama_tensors),
    "qwen2": ("qwen2", _llama_shapes, _plain_tensors),
    "qwen3": ("qwen3", _llama_shapes, _plain_tensors),
    "gemma3_text": ("gemma3", _llama_shapes, _gemma_tensors),
    "phi3": ("phi3", _llama_shapes, _plain_tensors),
    "gpt2": ("gpt2", _gpt2_shapes, _gpt2_tensors),
}

# Cases

_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 101,
    "hidden_size": 96,
    "intermediate_size": 136,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 112,
    "rms_norm_eps": 1e-3,
    "rope_theta": 700.0,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_LLAMA3 = {"rope_type": "llama3", "factor": 5.0, **dict(zip(_LLAMA3_KEYS, (64, 1.0, 4.0), strict=True))}
_YARN = {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 64, "beta_fast": 4.0}
_GEMMA = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "num_hidden_layers": 7,
    "head_dim": 20,
    "query_pre_attn_scalar": 20,
    "rms_norm_eps": 0.03,  # large, because the scaled embedding is: a wrong epsilon must show
    "sliding_window": 9,
    "rope_local_base_freq": 150.0,
    "rope_scaling": {"rope_type": "linear", "factor": 2.5},
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
_PHI = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "num_key_value_heads": 3,
    "partial_rotary_factor": 0.75,
    "original_max_position_embeddings": 112,
}
_LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.7, 2.0, 2.6],
    "long_factor": [1.0, 1.4, 2.2, 3.1, 4.5, 7.0],
}
_GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 101,
    "n_positions": 53,
    "n_embd": 84,
    "n_inner": 136,
    "n_layer": 3,
    "n_head": 6,
    "layer_norm_epsilon": 1e-3,
    "bos_token_id": None,
    "eos_token_id": None,
}


def _case(name: str, *layers: Mapping[str, Any], **changes: Any) -> Case:
    config = dict(_LLAMA)
    for layer in layers:
        config |= layer
    return Case(name, config | changes)


CASES = {
    case.name: case
    for case in (
        _case("llama"),
        _case("llama_head_dim_bias", head_dim=24, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
        _case("llama3_rope", rope_scaling=_LLAMA3, head_dim=24),
        _case("llama_linear_rope", rope_scaling={"rope_type": "linear", "factor": 3.5}),
        _case("llama_yarn", rope_scaling=_YARN),
        _case("mistral_window", architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=11),
        _case(
            "mixtral",
            architectures=["MixtralForCausalLM"],
            model_type="mixtral",
            num_local_experts=5,
            num_experts_per_tok=2,
            sliding_window=None,
        ),
        _case("qwen2", architectures=["Qwen2ForCausalLM"], model_type="qwen2"),
        _case("qwen3", architectures=["Qwen3ForCausalLM"], model_type="qwen3", head_dim=20),
        _case(
            "qwen3_yarn",
            architectures=["Qwen3ForCausalLM"],
            model_type="qwen3",
            head_dim=20,
            rope_scaling={**_YARN, "beta_slow": 0.5, "attention_factor": 1.3},
        ),
        _case("gemma3", _GEMMA),
        _case("gemma3_softcap", _GEMMA, final_logit_softcapping=60.0, rope_scaling=None),
        _case("phi3", _PHI),
        _case("phi3_window", _PHI, sliding_window=13),
        _case("phi3_longrope_short", _PHI, rope_scaling=_LONGROPE, original_max_position_embeddings=112),
        _case("phi3_longrope_long", _PHI, rope_scaling=_LONGROPE, original_max_position_embeddings=28),
        Case("gpt2", _GPT2),
    )
}
