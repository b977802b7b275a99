"""What is in a GGUF file, as plain data: the core of `halfbyte inspect`. Reads the header only, never a weight.

Works for any valid file: vocabulary-only files, unknown architectures, and metadata of unexpected types, which is shown
in the list of keys and otherwise treated as absent.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np

from ..formats.gguf import GGUFFile, GGUFTensor, Metadata
from ..formats.gguf.kinds import INT8_KEY, KINDS
from ..formats.gguf.types import ValueType

MAX_SHOWN = 8  # elements of a metadata array that are shown; longer ones are not even decoded
MAX_TEXT = 2000  # characters of a metadata string that are kept

# what a tensor is for, by the part of its name after "blk.N."; the first match wins
GROUPS: tuple[tuple[str, str], ...] = (
    (r"(token|position|per_layer_token)_embd", "embedding"),
    (r"output(?!_norm)", "output"),
    (r".*norm", "norm"),
    (r"ffn_.*(exps|shexp|inp)|exp_probs", "experts"),
    (r"ffn_", "feed-forward"),
    (r"attn_|rope_|cross_attn", "attention"),
    (r"ssm_|time_mix|channel_mix|shortconv", "recurrent"),
)

SHAPE_KEYS = {
    "context": "context_length",
    "embedding": "embedding_length",
    "blocks": "block_count",
    "feed_forward": "feed_forward_length",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "key_length": "attention.key_length",
    "value_length": "attention.value_length",
    "sliding_window": "attention.sliding_window",
    "experts": "expert_count",
    "experts_used": "expert_used_count",
}

T = TypeVar("T")


def describe(gguf: GGUFFile) -> dict[str, Any]:
    """Everything `inspect` shows, made of str, int, float, bool, None, list and dict only."""
    metadata = gguf.metadata
    architecture = _get(metadata, "general.architecture", str)
    return {
        "path": str(gguf.path),
        "size": gguf.size,
        "gguf_version": gguf.version,
        "byte_order": "big" if gguf.byte_order == ">" else "little",
        "alignment": gguf.alignment,
        "split": _split(gguf),
        "kind": _kind(gguf),
        "architecture": architecture,
        "name": _get(metadata, "general.name", str),
        "licence": _get(metadata, "general.license", str),
        "tensors": len(gguf.tensors),
        **_weights(gguf.tensors.values()),
        "types": _summary(gguf.tensors.values(), lambda tensor: tensor.type.name),
        "bitsandbytes": _bitsandbytes(gguf),
        "groups": _summary(gguf.tensors.values(), lambda tensor: group_of(tensor.name)),
        "shape": _shape(metadata, architecture),
        "rope": _rope(metadata, architecture),
        "tokenizer": _tokenizer(metadata),
        "chat_templates": _templates(metadata),
    }


def describe_metadata(metadata: Metadata) -> list[dict[str, Any]]:
    """Key, type, element count and shortened value of every key, in file order."""
    return [_entry(metadata, key) for key in metadata]


def describe_tensors(tensors: Iterable[GGUFTensor]) -> list[dict[str, Any]]:
    """Name, type, shape (NumPy order), bytes and file offset of every tensor."""
    return [
        {"name": t.name, "type": t.type.name, "shape": list(t.shape), "bytes": t.n_bytes, "offset": t.offset}
        for t in tensors
    ]


def group_of(name: str) -> str:
    """What a tensor is for: one of GROUPS, or "other"."""
    name = re.sub(r"^((enc|dec)\.)?blk\.\d+\.", "", name)
    return next((group for pattern, group in GROUPS if re.match(pattern, name)), "other")


def _get(metadata: Metadata, key: str, type_: type[T]) -> T | None:
    value = metadata[key] if key in metadata else None  # noqa: SIM401 - Mapping.get would decode to find out
    is_number = type_ is int and isinstance(value, bool)
    return value if isinstance(value, type_) and not is_number else None


def _bitsandbytes(gguf: GGUFFile) -> dict[str, Any] | None:
    """How many tensors are stored as bytes, by kind; how many as Q8_0 with a meaning: four bits, or a scale a row."""
    tensors = gguf.tensors.values()
    kinds = Counter(KINDS[tensor.type].text for tensor in tensors if tensor.type in KINDS)
    reversible = Counter(tensor.made_of.name for tensor in tensors if tensor.made_of is not None)
    rows = _get(gguf.metadata, INT8_KEY, list) or ()
    int8 = sum(name in gguf.tensors for name in rows)
    found = {"kinds": dict(kinds), "reversible": dict(reversible), "int8": int8}
    return found if any(found.values()) else None


def _split(gguf: GGUFFile) -> dict[str, Any] | None:
    count = _get(gguf.metadata, "split.count", int) or 1
    return {"count": count, "files": [path.name for path in gguf.paths]} if count > 1 else None


def _kind(gguf: GGUFFile) -> str:
    declared = _get(gguf.metadata, "general.type", str)
    if not gguf.tensors:
        return "vocabulary" if "tokenizer.ggml.tokens" in gguf.metadata else "metadata"
    return declared or "model"


def _weights(tensors: Iterable[GGUFTensor]) -> dict[str, Any]:
    elements = n_bytes = 0
    for tensor in tensors:
        elements, n_bytes = elements + tensor.n_elements, n_bytes + tensor.n_bytes
    return {"parameters": elements, "tensor_bytes": n_bytes, "bits_per_weight": _bits(n_bytes, elements)}


def _summary(tensors: Iterable[GGUFTensor], key: Any) -> dict[str, dict[str, Any]]:
    """Tensors, parameters, bytes and bits per weight of each group; the largest group first."""
    members: dict[str, list[GGUFTensor]] = defaultdict(list)
    for tensor in tensors:
        members[key(tensor)].append(tensor)
    rows = {
        name: {"tensors": len(group), **_weights(group), "types": sorted({t.type.name for t in group})}
        for name, group in members.items()
    }
    return dict(sorted(rows.items(), key=lambda row: (-int(row[1]["tensor_bytes"]), row[0])))


def _bits(n_bytes: int, elements: int) -> float | None:
    return round(n_bytes * 8 / elements, 3) if elements else None


def _shape(metadata: Metadata, architecture: str | None) -> dict[str, Any]:
    found = {name: _plain(metadata, f"{architecture}.{key}") for name, key in SHAPE_KEYS.items()}
    return {name: value for name, value in found.items() if value is not None}


def _rope(metadata: Metadata, architecture: str | None) -> dict[str, Any]:
    prefix = f"{architecture}.rope."
    return {key.removeprefix(prefix): _plain(metadata, key) for key in metadata if key.startswith(prefix)}


def _tokenizer(metadata: Metadata) -> dict[str, Any] | None:
    prefix = "tokenizer.ggml."
    if f"{prefix}model" not in metadata and f"{prefix}tokens" not in metadata:
        return None
    known = {"kind": "model", "pre": "pre", "bos": "bos_token_id", "eos": "eos_token_id", "add_bos": "add_bos_token"}
    values = {name: _plain(metadata, prefix + key) for name, key in known.items()}
    tokens = metadata.count(f"{prefix}tokens") if f"{prefix}tokens" in metadata else 0
    merges = metadata.count(f"{prefix}merges") if f"{prefix}merges" in metadata else 0
    return {**values, "tokens": tokens, "merges": merges}


def _templates(metadata: Metadata) -> dict[str, Any]:
    """The chat templates by name: fingerprint and length in characters; their text is in the metadata."""
    prefix = "tokenizer.chat_template"
    found = {}
    for key in metadata:
        text = _get(metadata, key, str) if key == prefix or key.startswith(prefix + ".") else None
        if text is not None:
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            found[key.removeprefix(prefix).removeprefix(".") or "default"] = {"sha256": digest, "length": len(text)}
    return found


def _plain(metadata: Metadata, key: str) -> Any:
    return _entry(metadata, key)["value"] if key in metadata else None


def _entry(metadata: Metadata, key: str) -> dict[str, Any]:
    type_, count = metadata.value_type(key), metadata.count(key)
    if type_ is ValueType.ARRAY:
        element = metadata.element_type(key)
        name = f"{element.name.lower() if element is not None else '?'}[{count}]"
        return {"key": key, "type": name, "value": _elements(metadata[key]) if count <= MAX_SHOWN else None}
    value = metadata[key]
    if isinstance(value, str):
        return {"key": key, "type": "string", "value": value[:MAX_TEXT], "length": len(value)}
    return {"key": key, "type": type_.name.lower(), "value": value}


def _elements(value: Any) -> list[Any]:
    items = value.tolist() if isinstance(value, np.ndarray) else list(value)
    return [item[:MAX_TEXT] if isinstance(item, str) else item for item in items]
