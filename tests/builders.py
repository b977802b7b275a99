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
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter, ValueType
from halfbyte.formats.quants import codec_for
from halfbyte.runtime.models import ModelSpec, build_model
from numpy.typing import NDArray

from .layouts import LAYOUTS
from .layouts.keys import metadata
from .layouts.shapes import Shape
from .layouts.tensors import LLAMA3_KEYS, Array, Arrays

Change = Callable[[dict[str, Any], Arrays], None]
N_TOKENS = 37  # more than a page of the cache and than every window below


@dataclass(frozen=True)
class Case:
    """A tiny model: the content of its config.json. `metadata` are further keys of the GGUF file."""

    name: str
    config: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        """The GGUF name of the family."""
        return LAYOUTS[self.config["model_type"]].architecture

    def tokens(self) -> NDArray[np.int32]:
        return np.random.default_rng(_seed(self.name, "tokens")).integers(
            0, self.config["vocab_size"], N_TOKENS, np.int32
        )

    def weights(self) -> Arrays:
        """Random weights under Hugging Face names, float32."""
        shapes = LAYOUTS[self.config["model_type"]].shapes(self.config)
        return {name: _random(self.name, name, shape) for name, shape in shapes.items()}


def write_gguf(case: Case, path: Path, *, change: Change | None = None, matrix_type: GGMLType = GGMLType.F32) -> Path:
    """Write the case as llama.cpp's converter would. `change` may edit metadata and tensors first; see `write`."""
    metadata, tensors = to_gguf(case)
    if change is not None:
        change(metadata, tensors)
    return write(metadata, tensors, path, matrix_type)


def write(
    metadata: Mapping[str, Any], tensors: Mapping[str, Array], path: Path, matrix_type: GGMLType = GGMLType.F32
) -> Path:
    """Write a GGUF file. A NumPy float64 stays one, other floats become float32.

    Tensors are float32, but matrices whose rows are whole blocks of `matrix_type` are of that type.
    """
    writer = GGUFWriter(path)
    for key, value in metadata.items():
        writer.add(key, value, ValueType.FLOAT64 if isinstance(value, np.float64) else None)
    encoded = {name: _encode(np.ascontiguousarray(array), matrix_type) for name, array in tensors.items()}
    for name, (type_, _) in encoded.items():
        writer.add_tensor(name, tensors[name].shape, type_)
    with writer.open():
        for name, (_, data) in encoded.items():
            writer.write_tensor(name, data)
    return path


def split(source: Path, stem: Path, tensors_each: int) -> list[Path]:
    """Write the model again as shards STEM-00001-of-0000N.gguf of `tensors_each` tensors."""
    writer = GGUFWriter(stem.with_suffix(".gguf"), split_max_tensors=tensors_each)
    with GGUFFile.open(source) as file:
        writer.add_all(file.metadata)
        for tensor in file.tensors.values():
            writer.add_tensor(tensor.name, tensor.shape, tensor.type)
        with writer.open():
            for tensor in file.tensors.values():
                writer.write_tensor(tensor.name, tensor.data)
    return [plan.path for plan in writer.plan()]


def open_case(case: Case, folder: Path, *, context: int | None = None, **options: Any) -> ModelSpec:
    """Write the case and build its model from memory: no file stays mapped, which Windows would refuse to delete."""
    path = write_gguf(case, folder / f"{case.name}.gguf", **options)
    with GGUFFile.open(path, use_mmap=False) as file:
        return build_model(file, context=context)


def _encode(array: Array, matrix_type: GGMLType) -> tuple[GGMLType, Any]:
    if matrix_type is GGMLType.F32 or array.ndim < 2 or array.shape[-1] % matrix_type.block_size:
        return GGMLType.F32, array
    return matrix_type, codec_for(matrix_type).encode(array)


def to_gguf(case: Case) -> tuple[dict[str, Any], Arrays]:
    """Metadata and tensors of the GGUF file."""
    scoped = {f"{case.architecture}.{key}": value for key, value in metadata(case.config).items()}
    general = {"general.architecture": case.architecture, "general.name": case.name}
    tensors = LAYOUTS[case.config["model_type"]].tensors(case.config, case.weights())
    return {**general, **scoped}, tensors


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
_LLAMA3 = {"rope_type": "llama3", "factor": 5.0, **dict(zip(LLAMA3_KEYS, (64, 1.0, 4.0), strict=True))}
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
_GEMMA1 = {
    "architectures": ["GemmaForCausalLM"],
    "model_type": "gemma",
    "head_dim": 20,
    "rms_norm_eps": 0.03,
    "hidden_act": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
_GEMMA2 = {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "num_hidden_layers": 4,
    "query_pre_attn_scalar": 28,
    "sliding_window": 9,
    "hidden_activation": "gelu_pytorch_tanh",
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 100.0,
}
_QWEN2_MOE = {
    "architectures": ["Qwen2MoeForCausalLM"],
    "model_type": "qwen2_moe",
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 44,
    "shared_expert_intermediate_size": 52,
    "norm_topk_prob": False,
}
_QWEN3_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "head_dim": 20,
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 44,
    "norm_topk_prob": True,
}
_STARCODER = {
    "architectures": ["Starcoder2ForCausalLM"],
    "model_type": "starcoder2",
    "norm_epsilon": 1e-2,
    "sliding_window": 11,
    "hidden_act": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
_NEOX = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "layer_norm_eps": 1e-2,
    "rotary_pct": 0.5,
    "rotary_emb_base": 700,
    "hidden_act": "gelu",
    "use_parallel_residual": True,
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
        _case(
            "qwen2_yarn",
            architectures=["Qwen2ForCausalLM"],
            model_type="qwen2",
            rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        ),
        _case("qwen3", architectures=["Qwen3ForCausalLM"], model_type="qwen3", head_dim=20),
        _case(
            "qwen3_yarn",
            architectures=["Qwen3ForCausalLM"],
            model_type="qwen3",
            head_dim=20,
            rope_scaling={**_YARN, "beta_slow": 0.5, "attention_factor": 1.3},
        ),
        _case("qwen2moe", _QWEN2_MOE),
        _case("qwen3moe", _QWEN3_MOE),
        _case("olmo2", architectures=["Olmo2ForCausalLM"], model_type="olmo2", rms_norm_eps=1e-2),
        _case("starcoder2", _STARCODER),
        _case("gptneox", _NEOX),
        _case("gptneox_sequential", _NEOX, use_parallel_residual=False),
        _case("gemma", _GEMMA1),
        _case("gemma2", _GEMMA1, _GEMMA2),
        _case("gemma3", _GEMMA),
        _case("gemma3_softcap", _GEMMA, final_logit_softcapping=60.0, rope_scaling=None),
        _case("phi3", _PHI),
        _case("phi3_window", _PHI, sliding_window=13),
        _case(
            "phi3_longrope_short",
            _PHI,
            rope_scaling=_LONGROPE,
            original_max_position_embeddings=512,  # llama.cpp's contexts are multiples of 256
            max_position_embeddings=512,
        ),
        _case("phi3_longrope_long", _PHI, rope_scaling=_LONGROPE, original_max_position_embeddings=28),
        Case("gpt2", _GPT2),
    )
}

# Encoders: a text goes in whole, and what comes out are vectors, not logits.

_BERT: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 101,
    "hidden_size": 96,
    "intermediate_size": 136,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 53,
    "type_vocab_size": 3,
    "layer_norm_eps": 1e-3,
    "hidden_act": "gelu",
    "pad_token_id": 0,
}
# The tokens of the case have none of the padding, whose position transformers does not count.
_ROBERTA = {"architectures": ["RobertaModel"], "model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 2}

ENCODERS = {case.name: case for case in (Case("bert", _BERT), Case("roberta", _BERT | _ROBERTA))}


def no_text(n: int) -> dict[str, Any]:
    """So many pieces that are no text, for programs that want to see some."""
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(3, n))],
        "tokenizer.ggml.scores": -np.arange(n, dtype=np.float32),
        "tokenizer.ggml.token_type": np.array([2, 3, 3] + [1] * (n - 3), np.int32),
    }


_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"\u2581{letter}" for letter in _LETTERS), *_LETTERS]


def write_embedding_model(path: Path) -> Path:
    """The case "bert" with a vocabulary of single letters and mean pooling."""

    def change(keys: dict[str, Any], tensors: Arrays) -> None:
        unused = [f"[unused{i}]" for i in range(_BERT["vocab_size"] - len(_TOKENS))]
        vocabulary = {
            "model": "bert",
            "tokens": _TOKENS + unused,
            "token_type": [3] * 4 + [1] * (_BERT["vocab_size"] - 4),
            "padding_token_id": 0,
            "unknown_token_id": 1,
            "cls_token_id": 2,
            "seperator_token_id": 3,
        }
        keys |= {f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()}
        keys["bert.pooling_type"] = 1  # mean, by llama.cpp's numbers

    return write_gguf(ENCODERS["bert"], path, change=change)
