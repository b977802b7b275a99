"""What a folder says about its model besides numbers: its card and its sampling defaults, as keys `general.*`.

The card is the front matter of README.md. Parts of the model's name that it does not say are read out of the id in
config.json, and then out of the folder's name, as llama.cpp's converter does it. A card that is broken costs its keys
and a warning, not the conversion.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..formats.gguf import ValueType
from .checkpoint import Checkpoint, CheckpointError
from .families.family import Keys
from .front_matter import FrontMatterError, front_matter
from .naming import folder_id, parts_of

MAX_CHARS, MAX_ENTRIES = 1 << 14, 500  # of one text, of one list
MAX_NAME = 256  # of the name of a model: as long as a file's may be
_HUB = "https://huggingface.co/"
_ID = re.compile(r"(?:\w[\w.-]*/)?\w[\w.-]*")  # of a model: OWNER/NAME or NAME

# Key under general. -> fields of the card, the first that is there.
_TEXTS = {
    "name": ("name", "model_name"),
    "author": ("author", "model_author", "model_creator"),
    "version": ("version", "model_version"),
    "organization": ("organization", "model_organization"),
    "finetune": ("finetune", "model_finetune"),
    "basename": ("basename", "model_basename", "model_type"),
    "size_label": ("size_label", "model_size_label"),
    "description": ("description", "model_description"),
    "license": ("license",),
    "license.name": ("license_name",),
    "license.link": ("license_link",),
    "source.url": ("url", "model_url"),
    "source.doi": ("doi", "model_doi"),
    "source.uuid": ("uuid", "model_uuid"),
    "source.repo_url": ("repo_url", "model_repo_url"),
}
_LISTS = {"tags": ("tags", "pipeline_tag"), "languages": ("languages", "language")}  # of all these fields together
_REFERENCES = {
    "base_model": ("base_model", "base_models", "base_model_sources"),
    "dataset": ("datasets", "dataset", "dataset_sources"),
}
# Key under general.sampling. -> field of generation_config.json, whether it is a whole number, and its bounds:
# values outside of them are mistakes, or another program's way to say "off", and no sampler takes them.
_SAMPLING = {
    "top_k": ("top_k", True, 0, (1 << 31) - 1),
    "top_p": ("top_p", False, 0, 1),
    "min_p": ("min_p", False, 0, 1),
    "temp": ("temperature", False, 0, 1e9),
    "penalty_repeat": ("repetition_penalty", False, 1e-3, 1e3),
}


def card_keys(checkpoint: Checkpoint, n_weights: int) -> Keys:
    """Keys `general.*` of the card and of ids. `general.name` is always among them.

    `n_weights` is how many weights the model has, see `parts_of`.
    """
    card = _card(checkpoint)
    keys: Keys = {}
    for key, fields in _TEXTS.items():
        if said := next((text for field in fields if (text := _joined(card.get(field)))), None):
            keys[f"general.{key}"] = said
    for model_id in _ids(checkpoint):
        for part, text in parts_of(model_id, n_weights).items():
            keys.setdefault(f"general.{part}", text)
    keys.setdefault("general.name", "model")
    for key, fields in _LISTS.items():
        if found := [text for field in fields for text in _texts(card.get(field))]:
            keys[f"general.{key}"] = list(dict.fromkeys(found))
    for key, fields in _REFERENCES.items():
        given: Any = next((card[field] for field in fields if card.get(field)), [])
        keys |= _references(f"general.{key}", given if isinstance(given, list) else [given], n_weights)
    return keys


def sampling_keys(checkpoint: Checkpoint) -> Keys:
    """Keys `general.sampling.*` of generation_config.json: what the model's makers recommend."""
    given = checkpoint.json("generation_config.json")
    keys: Keys = {}
    for key, (field, is_whole, low, high) in _SAMPLING.items():
        value = given.get(field) if isinstance(given, dict) else None
        if type(value) is int or (type(value) is float and not is_whole):
            kind = ValueType.INT32 if is_whole else ValueType.FLOAT32
            if low <= value <= high:
                keys[f"general.sampling.{key}"] = (value if is_whole else float(value), kind)
    return keys


def _card(checkpoint: Checkpoint) -> Mapping[str, Any]:
    try:
        return front_matter(checkpoint.text("README.md") or "")
    except (FrontMatterError, CheckpointError) as error:
        path = checkpoint.path / "README.md"
        logging.getLogger(__name__).warning("%s: its front matter is left out: %s", path, error)
        return {}


def _ids(checkpoint: Checkpoint) -> Iterator[str]:
    """The hub's name in config.json, if it is one and no path on somebody's disk; the folder's."""
    said = checkpoint.config.get("_name_or_path")
    if isinstance(said, str) and _is_id(said):
        yield said
    yield folder_id(checkpoint.path)


def _is_id(text: str) -> bool:
    return len(text) <= MAX_NAME and _ID.fullmatch(text) is not None


def _texts(value: object) -> list[str]:
    """A text or a list of texts as a list; anything else is left out."""
    items = value if isinstance(value, list) else [value]
    return [item[:MAX_CHARS] for item in items[:MAX_ENTRIES] if isinstance(item, str) and item]


def _joined(value: object) -> str:
    return ",".join(_texts(value))


def _references(prefix: str, entries: list[Any], n_weights: int) -> Keys:
    """Models or datasets that this one was made of: names on the hub, addresses, or objects of both."""
    described = [one for entry in entries[:MAX_ENTRIES] if (one := _described(entry, n_weights))]
    keys: Keys = {f"{prefix}.count": (len(described), ValueType.UINT32)} if described else {}
    for i, one in enumerate(described):
        keys |= {f"{prefix}.{i}.{field}": text for field, text in one.items()}
    return keys


def _described(entry: object, n_weights: int) -> dict[str, str]:
    if isinstance(entry, dict):
        known = ("name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url")
        return {field: text for field in known if (text := _joined(entry.get(field)))}
    if not isinstance(entry, str) or not entry:
        return {}
    url = entry[:MAX_CHARS] if re.match(r"(https?|ssh)://", entry) else None
    model_id = entry.removeprefix(_HUB) if url else entry
    if not _is_id(model_id):
        return {"repo_url": url} if url else {"name": entry[:MAX_CHARS]}
    parts = parts_of(model_id, n_weights)
    found = {part: parts[part] for part in ("name", "organization", "version") if part in parts}
    return found | ({"repo_url": url or _HUB + model_id} if "organization" in found else {})
