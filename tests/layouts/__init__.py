"""How a Hugging Face checkpoint of each family becomes a GGUF file: shapes, names, row order, metadata.

Written out for tests, independent of `converters/`, after llama.cpp's converter. `LAYOUTS` is the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .encoders import bert_shapes, bert_tensors
from .shapes import Shape, gpt2_shapes, gptneox_shapes, llama_shapes
from .tensors import (
    Arrays,
    gemma_tensors,
    gpt2_tensors,
    gptneox_tensors,
    llama_tensors,
    plain_tensors,
    post_norm_tensors,
)


class Layout(NamedTuple):
    """The GGUF name of a family, the shapes of a checkpoint, and its tensors under GGUF names."""

    architecture: str
    shapes: Callable[[Mapping[str, Any]], dict[str, Shape]]
    tensors: Callable[[Mapping[str, Any], Arrays], Arrays]


LAYOUTS: dict[str, Layout] = {
    "llama": Layout("llama", llama_shapes, llama_tensors),
    "mistral": Layout("llama", llama_shapes, llama_tensors),
    "mixtral": Layout("llama", llama_shapes, llama_tensors),
    "qwen2": Layout("qwen2", llama_shapes, plain_tensors),
    "qwen2_moe": Layout("qwen2moe", llama_shapes, plain_tensors),
    "qwen3": Layout("qwen3", llama_shapes, plain_tensors),
    "qwen3_moe": Layout("qwen3moe", llama_shapes, plain_tensors),
    "gemma": Layout("gemma", llama_shapes, gemma_tensors),
    "gemma2": Layout("gemma2", llama_shapes, gemma_tensors),
    "gemma3_text": Layout("gemma3", llama_shapes, gemma_tensors),
    "phi3": Layout("phi3", llama_shapes, plain_tensors),
    "olmo2": Layout("olmo2", llama_shapes, post_norm_tensors),
    "starcoder2": Layout("starcoder2", llama_shapes, plain_tensors),
    "gpt_neox": Layout("gptneox", gptneox_shapes, gptneox_tensors),
    "gpt2": Layout("gpt2", gpt2_shapes, gpt2_tensors),
    "bert": Layout("bert", bert_shapes, bert_tensors),
    "roberta": Layout("bert", bert_shapes, bert_tensors),
}
