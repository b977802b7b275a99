"""generation_config.json: how the authors of a model want it to be sampled."""

from __future__ import annotations

from ...formats.gguf import ValueType
from ..checkpoint import Checkpoint
from ..config import Config
from .table import Keys

NAME = "generation_config.json"
_PREFIX = "general.sampling."
# Key -> fields, the first that is there, and the bounds beyond which a value means nothing.
_NUMBERS = {
    "top_p": (("top_p",), 0.0, 1.0),
    "min_p": (("min_p",), 0.0, 1.0),
    "xtc_probability": (("xtc_probability",), 0.0, 1.0),
    "xtc_threshold": (("xtc_threshold",), 0.0, 1.0),
    "temp": (("temperature",), 0.0, 100.0),
    "penalty_repeat": (("penalty_repeat", "repetition_penalty"), 0.0, 100.0),
    "mirostat_tau": (("mirostat_tau",), 0.0, 100.0),
    "mirostat_eta": (("mirostat_eta",), 0.0, 100.0),
}
_COUNTS = {"top_k": (0, 1 << 24), "penalty_last_n": (-1, 1 << 24), "mirostat": (0, 2)}


def generation_keys(checkpoint: Checkpoint) -> Keys:
    """Defaults of sampling under the names that llama.cpp reads; nothing where the file is silent."""
    if not checkpoint.find(NAME):
        return {}
    c = Config(checkpoint.require_json(NAME), checkpoint.path / NAME)
    keys: Keys = {}
    for key, (low, high) in _COUNTS.items():
        if key in c:
            keys[_PREFIX + key] = (c.count(key, low=low, high=high), ValueType.INT32)
    for key, (names, least, most) in _NUMBERS.items():
        if any(name in c for name in names):
            keys[_PREFIX + key] = (c.number(*names, low=least, high=most), ValueType.FLOAT32)
    return keys
