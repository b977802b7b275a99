"""Model families: which graph a file's architecture means.

    spec = build_model(GGUFFile.open(path))      # validated: every key read, every tensor used, every shape checked

To add a family, write one file with a `build` function and add one row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from ...formats.errors import ContextOverflow, UnsupportedError
from ...formats.gguf import GGUFFile
from ..graph.builder import GraphBuilder
from ..graph.ir import Graph
from . import (
    bert,
    gemma,
    gemma2,
    gemma3,
    gpt2,
    gptneox,
    llama,
    olmo2,
    phi3,
    qwen2,
    qwen2moe,
    qwen3,
    qwen3moe,
    starcoder2,
)  # fmt: skip
from .config import Config
from .hparams import Hparams

Build = Callable[[GraphBuilder, Config], Hparams]

FAMILIES: dict[str, Build] = {
    "llama": llama.build,  # also Mistral, SmolLM2, TinyLlama, Yi, Mixtral: windows, experts, ropes come from metadata
    "qwen2": qwen2.build,
    "qwen2moe": qwen2moe.build,
    "qwen3": qwen3.build,
    "qwen3moe": qwen3moe.build,
    "gemma": gemma.build,
    "gemma2": gemma2.build,
    "gemma3": gemma3.build,
    "phi3": phi3.build,  # also Phi 3.5 and Phi 4
    "olmo2": olmo2.build,
    "starcoder2": starcoder2.build,
    "gpt2": gpt2.build,
    "gptneox": gptneox.build,  # also Pythia
    "bert": bert.build,  # also RoBERTa, whose converted positions begin at 0
}


@dataclass(frozen=True)
class ModelSpec:
    """A model that can run: its graph and the facts about it.

    context_length  what the model was trained with
    context         what this graph was built for; rope tables may depend on it
    max_context     the most positions it can represent, None where nothing but memory limits them
    n_params        elements of all tensors, tied ones once
    pooling         how the vectors of an encoder's tokens become one of the text, None for a model that predicts tokens
    """

    graph: Graph
    architecture: str
    name: str
    context_length: int
    context: int
    max_context: int | None
    vocab_size: int
    n_layer: int
    n_embd: int
    n_params: int
    pooling: str | None


def build_model(file: GGUFFile, *, context: int | None = None) -> ModelSpec:
    """Build the graph of a file, for a context of `context` tokens (default: as trained).

    Raises ModelFileError for a file that contradicts itself, UnsupportedError for an architecture, key or tensor that
    this version does not know, ContextOverflow for a context that the model cannot represent. `file` must stay open.
    """
    architecture = file.metadata.require("general.architecture", str)
    build = FAMILIES.get(architecture)
    if build is None:
        raise UnsupportedError(f"{file.path}: {_unknown(architecture)}")
    if context is not None and context < 1:
        raise ValueError(f"a context of {context} tokens; it must be at least 1")
    g, config = GraphBuilder(file.tensors, file.path), Config(file, architecture, context)
    hp = build(g, config)
    config.scope.done()
    if context is not None and hp.max_context is not None and context > hp.max_context:
        raise ContextOverflow(context, hp.max_context)
    return ModelSpec(
        graph=g.finish(),
        architecture=architecture,
        name=file.metadata.optional("general.name", str, file.path.stem),
        context_length=hp.context_length,
        context=context or hp.context_length,
        max_context=hp.max_context,
        vocab_size=hp.n_vocab,
        n_layer=hp.n_layer,
        n_embd=hp.n_embd,
        n_params=g.n_params,
        pooling=hp.pooling,
    )


def _unknown(architecture: str) -> str:
    known = ", ".join(sorted(FAMILIES))
    near = get_close_matches(architecture, FAMILIES, n=1)
    hint = f"; the nearest name is {near[0]!r}" if near else ""
    return f"the model architecture {architecture[:80]!r} is not supported{hint}. Supported: {known}"
