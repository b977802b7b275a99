"""config.json, read by name: what is missing or impossible is an error that names the file and the field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .checkpoint import CheckpointError

MAX_COUNT = 1 << 24  # of anything a model has: more is absurd, and nothing is allocated for it
T = TypeVar("T")
# What config.json calls the fields that keys are made of: for errors that only the whole model shows.
_FIELDS = {
    "block_count": ("num_hidden_layers", "n_layer"),
    "context_length": ("max_position_embeddings", "n_positions", "n_ctx"),
    "embedding_length": ("hidden_size", "n_embd"),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads", "num_attention_heads"),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
    "attention.sliding_window": ("sliding_window",),
    "expert_count": ("num_local_experts", "num_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "rope.dimension_count": ("head_dim", "partial_rotary_factor", "hidden_size"),
    "rope.freq_base": ("rope_theta", "rotary_emb_base"),
    "vocab_size": ("vocab_size",),
}


class Config:
    """Fields of config.json, or of the part of it that describes the language model."""

    def __init__(self, fields: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        self.fields, self.path, self._prefix = fields, path, prefix

    def __contains__(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self.fields.get(name) is not None

    def field_of(self, key: str | None, architecture: str) -> str | None:
        """The field that a key of GGUF was made of, by the first of its names that is there; the key if none is."""
        names = _FIELDS.get((key or "").removeprefix(f"{architecture}."), ())
        return next((self._prefix + name for name in names if name in self), key)

    def inner(self, name: str) -> Config:
        """An object in the object; empty where it is missing."""
        found = self.fields.get(name)
        if found is None:
            found = {}
        if not isinstance(found, dict):
            raise self.refuse(name, found, "an object")
        return Config(found, self.path, f"{self._prefix}{name}.")

    def having(self, fields: Mapping[str, Any]) -> Config:
        """The same object with other fields: errors name it as before."""
        return Config(fields, self.path, self._prefix)

    def count(self, *names: str, default: int | None = None, low: int = 1, high: int = MAX_COUNT) -> int:
        """A whole number under the first of these names that is there."""
        name, value = self._first(names, default)
        if type(value) is not int or not low <= value <= high:
            raise self.refuse(name, value, f"a whole number from {low:,} to {high:,}")
        return value

    def number(self, *names: str, default: float | None = None, low: float = -1e30, high: float = 1e30) -> float:
        """A number under the first of these names that is there."""
        name, value = self._first(names, default)
        if type(value) not in (int, float) or not low <= value <= high:
            raise self.refuse(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.fields.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(name, value, "true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        name, value = self._first((name,), default)
        if not isinstance(value, str):
            raise self.refuse(name, value, "a text")
        return value

    def numbers(self, name: str, count: int | None = None) -> list[float]:
        """A list of numbers, of a given length."""
        value = self.fields.get(name)
        is_list = isinstance(value, list) and all(type(item) in (int, float) for item in value)
        if not is_list or (count is not None and len(value or []) != count):
            raise self.refuse(name, value, f"a list of {count if count is not None else 'some'} numbers")
        return [float(item) for item in value or []]

    def expect(self, name: str, wanted: Any, *others: Any) -> None:
        """Refuse a field that has another value than the one that is implemented; it may be missing."""
        value = self.fields.get(name)
        if value is not None and value not in (wanted, *others):
            raise self.refuse(name, value, " or ".join(map(repr, (wanted, *others))))

    def refuse(self, name: str, got: Any, allowed: str) -> CheckpointError:
        """The error for a field with a wrong value; for the caller to raise."""
        problem = "missing" if got is None else "not a value that can be converted"
        return CheckpointError(problem, path=self.path, field=self._prefix + name, got=got, allowed=allowed)

    def _first(self, names: tuple[str, ...], default: Any) -> tuple[str, Any]:
        for name in names:
            if name in self:
                return name, self.fields[name]
        return names[0], default
