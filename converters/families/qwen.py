"""Qwen 2, 2.5 and 3, dense."""

from __future__ import annotations

from ..config import Config
from .family import Family, Keys
from .shared import LLAMA_NAMES, QK_NORM_NAMES, decoder_keys


def _keys(c: Config) -> Keys:
    c.expect("hidden_act", "silu")
    c.expect("use_sliding_window", False)
    return decoder_keys(c)


QWEN2 = Family("qwen2", keys=_keys, names=LLAMA_NAMES)
QWEN3 = Family("qwen3", keys=_keys, names=LLAMA_NAMES | QK_NORM_NAMES)
