"""Gemma 3, text: of multimodal checkpoints the language model alone."""

from __future__ import annotations

from ..config import Config
from .family import Family, Keys
from .shared import LAYERS, LLAMA_NAMES, QK_NORM_NAMES, decoder_keys, plus_one, rope_keys, rope_parameters

_NORMS = {
    f"{LAYERS}post_attention_layernorm": "blk.{i}.post_attention_norm",
    f"{LAYERS}pre_feedforward_layernorm": "blk.{i}.ffn_norm",
    f"{LAYERS}post_feedforward_layernorm": "blk.{i}.post_ffw_norm",
}


def _gemma3_keys(c: Config) -> Keys:
    c.expect("hidden_activation", "gelu_pytorch_tanh")
    rope = rope_parameters(c)
    whole = rope.inner("full_attention") if "full_attention" in rope else rope  # transformers 5 has one for each kind
    keys = decoder_keys(c) | rope_keys(c, whole)
    if "sliding_window" in c:
        keys["attention.sliding_window"] = c.count("sliding_window")
    if "sliding_attention" in rope:
        keys["rope.freq_base_swa"] = rope.inner("sliding_attention").number("rope_theta", low=1.0, high=1e12)
    elif "rope_local_base_freq" in c:
        keys["rope.freq_base_swa"] = c.number("rope_local_base_freq", low=1.0, high=1e12)
    if "final_logit_softcapping" in c:
        keys["final_logit_softcapping"] = c.number("final_logit_softcapping", low=1e-3, high=1e6)
    return keys


_NAMES3 = LLAMA_NAMES | QK_NORM_NAMES | _NORMS
GEMMA3 = Family(
    "gemma3",
    keys=_gemma3_keys,
    names=_NAMES3,
    changes={stem: plus_one for stem in _NAMES3.values() if stem.endswith("_norm")},
    ignored=(r"^vision_tower\.", r"^multi_modal_projector\.", r"^lm_head\."),  # the embedding is the head
)
