"""Leave layers out of a model: the others move up, and with them what metadata says of each layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from ...formats.errors import InvalidRequest
from ...formats.gguf import GGUFFile

_LAYER = re.compile(r"blk\.(\d{1,9})\.", re.ASCII)


def renamed(names: Iterable[str], prune: Sequence[int]) -> dict[str, str]:
    """Name -> name afterwards, in the same order, without pruned layers. InvalidRequest where one is not there."""
    names = list(names)
    if not prune:
        return dict(zip(names, names, strict=True))
    found = {name: int(match[1]) for name in names if (match := _LAYER.search(name))}
    layers = sorted(set(found.values()))
    if missing := set(prune) - set(layers):
        raise InvalidRequest(f"there is no layer {min(missing)} to leave out; the model has {len(layers)} layers")
    new = {old: number for number, old in enumerate(layer for layer in layers if layer not in prune)}
    if not new:
        raise InvalidRequest("a model without layers is none; leave out fewer")
    result = {}
    for name in names:
        if name not in found:
            result[name] = name
        elif found[name] in new:
            result[name] = _LAYER.sub(f"blk.{new[found[name]]}.", name, count=1)
    return result


def changed_metadata(file: GGUFFile, prune: Sequence[int]) -> dict[str, object]:
    """What the keys that count layers, or have a value for each, are afterwards. llama.cpp changes the count alone."""
    if not prune:
        return {}
    metadata = file.metadata
    own = f"{metadata.optional('general.architecture', str, '')}."
    count = metadata.require(f"{own}block_count", int)
    kept = [layer for layer in range(count) if layer not in prune]
    changed: dict[str, object] = {}
    for key in metadata:
        value = metadata[key] if key.startswith(own) else None
        if isinstance(value, np.ndarray) and len(value) == count:
            changed[key] = value[kept]
    changed[f"{own}block_count"] = len(kept)
    return changed
