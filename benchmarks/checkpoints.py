"""Llama-shaped Hugging Face folders with random bfloat16 weights, of any size: what `benchmarks.convert` converts."""

from __future__ import annotations

import json
import math
import shutil
import struct
from pathlib import Path

import numpy as np
from halfbyte.runtime.tokenize.sentence import model_proto
from halfbyte.runtime.tokenize.vocabulary import read_vocabulary

from .common import cache_dir, note
from .shapes import Shape, shape_of
from .synthetic import metadata, vocabulary

SHARD_BYTES = 4 << 30
TILE = 1 << 22  # random numbers that are made; tensors repeat them


def ensure(name: str) -> Path:
    """The folder of a shape, written if it is not there yet."""
    folder = cache_dir() / f"checkpoint-{name}"
    if not (folder / "config.json").exists():
        note(f"writing {folder.name}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write(folder, shape_of(name))
    return folder


def write(folder: Path, shape: Shape) -> None:
    """Shards, their index, a tokenizer, and last config.json."""
    rng = np.random.default_rng(3)
    tile = (rng.normal(0, 0.02, TILE).astype(np.float32).view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()
    shards, sizes = [dict[str, tuple[int, ...]]()], [0]
    for name, dims in _tensors(shape):
        if sizes[-1] and sizes[-1] + 2 * math.prod(dims) > SHARD_BYTES:
            shards.append({})
            sizes.append(0)
        shards[-1][name] = dims
        sizes[-1] += 2 * math.prod(dims)
    where = {}
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / file, tensors, tile)
        where |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    words = {key: values for key, (values, _) in vocabulary(shape.vocab_size).items()}
    proto = model_proto(read_vocabulary(metadata(shape, folder.name) | words), bpe=False)
    (folder / "tokenizer.model").write_bytes(proto.replace(b"\x18\x01\x98\x02", b"\x18\x02\x98\x02"))  # byte pairs
    (folder / "config.json").write_text(json.dumps(_config(shape)))


def _write_shard(path: Path, tensors: dict[str, tuple[int, ...]], tile: bytes) -> None:
    header, end = {}, 0
    for name, dims in tensors.items():
        size = 2 * math.prod(dims)
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, end, len(tile)):
            file.write(tile[: end - start])


def _config(s: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": s.d_model,
        "intermediate_size": s.d_ff, "num_hidden_layers": s.n_layer, "num_attention_heads": s.n_head,
        "num_key_value_heads": s.n_head_kv, "vocab_size": s.vocab_size, "max_position_embeddings": s.context,
        "rms_norm_eps": s.rms_eps, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": s.tied,
        "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


def _tensors(s: Shape) -> list[tuple[str, tuple[int, ...]]]:
    found: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (s.vocab_size, s.d_model))]
    for i in range(s.n_layer):
        for name, dims in {
            "input_layernorm": (s.d_model,), "post_attention_layernorm": (s.d_model,),
            "self_attn.q_proj": (s.d_model, s.d_model), "self_attn.k_proj": (s.d_kv, s.d_model),
            "self_attn.v_proj": (s.d_kv, s.d_model), "self_attn.o_proj": (s.d_model, s.d_model),
            "mlp.gate_proj": (s.d_ff, s.d_model), "mlp.up_proj": (s.d_ff, s.d_model),
            "mlp.down_proj": (s.d_model, s.d_ff),
        }.items():  # fmt: skip
            found.append((f"model.layers.{i}.{name}.weight", dims))
    found.append(("model.norm.weight", (s.d_model,)))
    return found if s.tied else [*found, ("lm_head.weight", (s.vocab_size, s.d_model))]
