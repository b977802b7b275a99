"""Names of models: what an id such as org/Base-7B-Instruct-v0.2 says, and what a model's file is called.

Both follow GGUF's naming convention by the gguf package, so that keys and names are those of llama.cpp's converter.
Texts come from cards of strangers: nothing that a system refuses or a terminal obeys gets into the name of a file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf

MAX_BYTES = 120  # before the type: with all that writing puts behind it, systems allow 255
# What a file name may say about the type of its weights, before ".gguf".
_TYPE = re.compile(r"[-._](f32|f16|bf16|fp32|fp16|i?q\d\w*|tq\d\w*|mxfp4\w*|[nf]p?4\w*|int8)$", re.IGNORECASE)
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_REFUSED = '<>:"/\\|?* '  # by Windows, or by the convention
_DEVICE = re.compile(r"^(con|prn|aux|nul|conin\$|conout\$|com[\d¹²³]|lpt[\d¹²³])\.", re.IGNORECASE)  # of Windows
_Metadata: Any = gguf.Metadata  # its functions are not all typed


def title(name: str) -> str:
    """A name as people write it: "tiny-model-v1.2-5B" becomes "Tiny Model v1.2 5B"."""
    return str(_Metadata.id_to_title(name))


def parts_of(model_id: str, n_weights: int) -> dict[str, str]:
    """What an id says: some of name, organization, basename, size_label, finetune and version.

    `n_weights` tells a size from the length of a context: no model of 7 billion weights is a 128K.
    """
    said = _Metadata.get_model_id_components(model_id, n_weights)
    parts = dict(zip(("name", "organization", "basename", "finetune", "version", "size_label"), said, strict=True))
    found = {key: title(text) if key in ("name", "organization") else text for key, text in parts.items() if text}
    return {key: text for key, text in found.items() if text}


def folder_id(folder: Path) -> str:
    """The name of a folder; of a snapshot in the hub's cache, which is called like a commit, OWNER/REPO."""
    here = folder.resolve()
    repository = here.parent.parent.name
    if here.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/", 1)
    return here.name


def size_label(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Parameters in short, as names of models have them: 8.4M, 1.1B, with experts 8x7B. `shapes` are by GGUF name."""
    experts = [shape for name, shape in shapes.items() if "_exps." in name and len(shape) == 3]
    total, of_experts = _size(shapes.values()), _size(experts)
    n_experts = sum(shape[0] for shape in experts) // len(experts) if experts else 0
    return str(gguf.size_label(total, total - of_experts, _size(shape[1:] for shape in experts), n_experts))


def converted_name(metadata: Mapping[str, Any], folder: Path, recipe: str) -> str:
    """BASENAME-SIZE-FINETUNE-VERSION-TYPE.gguf, by what the keys say; FOLDER-TYPE.gguf where they say no more."""
    own = folder_id(folder).rpartition("/")[2]
    name, base, finetune, version, size = (
        metadata.get(f"general.{key}") for key in ("name", "basename", "finetune", "version", "size_label")
    )
    is_own = base is None and name == title(own)
    model = own if is_own else gguf.naming_convention(name, base, finetune, version, size, output_type=None)
    return _file_name(model, recipe)


def quantized_name(source: Path, recipe: str) -> str:
    """Named like a GGUF file, with the recipe for its type."""
    return _file_name(_TYPE.sub("", _SHARD.sub("", source.name.removesuffix(".gguf"))), recipe)


def _file_name(model: str, recipe: str) -> str:
    plain = _DEVICE.sub(r"\1-", _plain(model).lstrip(".-"))
    stem = plain.encode()[:MAX_BYTES].decode(errors="ignore") or "model"
    return f"{stem}-{_plain(recipe).upper()}.gguf"


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() and char not in _REFUSED else "-" for char in text)


def _size(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)
