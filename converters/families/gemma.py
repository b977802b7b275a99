"""Gemma 1, CodeGemma, Gemma 2, and of Gemma 3 the text: of multimodal checkpoints the language model alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..config import Config
from .family import Family, Keys
from .shared import (
    LAYERS,
    LLAMA_NAMES,
    MAX_BASE,
    QK_NORM_NAMES,
    attention_biases,
    decoder_keys,
    head_dim,
    plus_one,
    rope_factors,
    rope_parameters,
    rotation,
)

_POST_NORMS = {
    f"{LAYERS}post_attention_layernorm": "blk.{i}.post_attention_norm",
    f"{LAYERS}pre_feedforward_layernorm": "blk.{i}.ffn_norm",
    f"{LAYERS}post_feedforward_layernorm": "blk.{i}.post_ffw_norm",
}
# The checkpoints that see say about their language model only where it differs from this.
_UNSAID = {
    "vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131_072, "sliding_window": 4096, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
}  # fmt: skip


def _gemma_keys(c: Config) -> Keys:
    c.expect("hidden_act", "gelu_pytorch_tanh", "gelu")  # by "gelu" released checkpoints mean the tanh form
    c.expect("hidden_activation", "gelu_pytorch_tanh")
    return decoder_keys(c)


def _gemma2_keys(c: Config) -> Keys:
    c.expect("hidden_activation", "gelu_pytorch_tanh")
    _expect_windows(c, every=2)
    return decoder_keys(c) | {
        **_scale(c),
        "attention.sliding_window": _window(c),
        "attn_logit_softcapping": _cap(c, "attn_logit_softcapping", 50.0),
        "final_logit_softcapping": _cap(c, "final_logit_softcapping", 30.0),
    }


def _gemma3_keys(c: Config) -> Keys:
    c.expect("hidden_activation", "gelu_pytorch_tanh")
    c.expect("use_bidirectional_attention", False)
    _expect_windows(c, every=6)
    keys = decoder_keys(c, rope=_rope_of_all(c)) | _rope_of_windows(c) | _scale(c)
    keys["attention.sliding_window"] = _window(c)
    if "final_logit_softcapping" in c:
        keys["final_logit_softcapping"] = _cap(c, "final_logit_softcapping", 30.0)
    return keys


def _rope_of_all(c: Config) -> Config:
    """Rotation in layers that see everything. transformers 5 has one for each kind, and adds `rope_scaling` to it."""
    kinds = c.inner("rope_parameters")
    rope = rope_parameters(c)
    if "full_attention" in kinds or "sliding_attention" in kinds:
        whole = kinds.inner("full_attention")
        rope = rotation(c, whole.having({**whole.fields, **c.inner("rope_scaling").fields}))
    else:  # transformers does not hear one for all layers
        kinds.expect("rope_type", "default")
    return rope.having({"rope_theta": 1e6, **rope.fields})


def _rope_of_windows(c: Config) -> Keys:
    """Their base; files have no keys for a scaling of theirs."""
    local = c.inner("rope_parameters").inner("sliding_attention")
    local.expect("rope_type" if "rope_type" in local else "type", "default")
    if "rope_theta" in local:
        return {"rope.freq_base_swa": local.number("rope_theta", low=1.0, high=MAX_BASE)}
    if "rope_local_base_freq" in c:
        return {"rope.freq_base_swa": c.number("rope_local_base_freq", low=1.0, high=MAX_BASE)}
    return {}


def _window(c: Config) -> int:
    _refuse_null(c, "sliding_window")  # transformers cannot run that either
    return c.count("sliding_window", default=4096)


def _scale(c: Config) -> Keys:
    """What scores are multiplied with, where that does not follow from the size of heads."""
    scalar = c.number("query_pre_attn_scalar", default=256, low=1e-3, high=1e6)
    return {} if scalar == head_dim(c) else {"attention.scale": 1 / math.sqrt(scalar)}


def _cap(c: Config, name: str, default: float) -> float:
    """A soft cap. A null says that there is none, which is not a missing field."""
    _refuse_null(c, name)
    return c.number(name, default=default, low=1e-3, high=1e6)


def _refuse_null(c: Config, name: str) -> None:
    if name in c.fields and c.fields[name] is None:
        raise c.refuse(name, "null", "a number")


def _expect_windows(c: Config, every: int) -> None:
    """All layers have a window but each `every`-th."""
    n_layer = c.count("num_hidden_layers", high=1 << 12)
    kinds = ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(n_layer)]
    c.expect("layer_types", kinds)
    c.expect("sliding_window_pattern", every)


def _family(
    architecture: str,
    keys: Callable[[Config], Keys],
    more: Mapping[str, str],
    unsaid: Mapping[str, Any] | None = None,
    rope: Callable[[Config], Config] = rope_parameters,
) -> Family:
    """The embedding is the head, and files of these families have no room for another."""
    names = {stem: name for stem, name in {**LLAMA_NAMES, **more}.items() if name != "output"}
    return Family(
        architecture,
        keys=keys,
        names=names,
        changes={stem: plus_one for stem in names.values() if stem.endswith("_norm")},
        ignored=(r"^(model\.)?(vision_tower|multi_modal_projector)\.",),
        unsaid=unsaid or {},
        biases=attention_biases,
        is_tied=True,
        extra=lambda c: rope_factors(c, rope(c)),
    )


GEMMA = _family("gemma", _gemma_keys, {})
GEMMA2 = _family("gemma2", _gemma2_keys, _POST_NORMS)
GEMMA3 = _family("gemma3", _gemma3_keys, QK_NORM_NAMES | _POST_NORMS, _UNSAID, _rope_of_all)
