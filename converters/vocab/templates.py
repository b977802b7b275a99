"""Chat templates: one, or several by name, in tokenizer_config.json or in files of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...formats.errors import TemplateError
from ...formats.gguf import ValueType
from ...runtime.chat.template import ChatTemplate
from ..checkpoint import Checkpoint, CheckpointError
from .table import Keys

MAX_TEMPLATES = 64
MAX_CHARS = 1 << 20
_KEY = "tokenizer.chat_template"
_FILE, _FOLDER = "chat_template.jinja", "additional_chat_templates"


def template_keys(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Keys:
    """The default template under its key, the others under theirs, and a list of their names."""
    named = _named(config.get("chat_template"), checkpoint) | _files(checkpoint)  # files win, as in transformers
    if len(named) > MAX_TEMPLATES or any(len(text) > MAX_CHARS for text in named.values()):
        raise CheckpointError(
            "too many or too long chat templates", path=checkpoint.path, field="chat_template",
            allowed=f"{MAX_TEMPLATES} of {MAX_CHARS:,} characters",
        )  # fmt: skip
    keys: Keys = {_KEY: named.pop("default")} if "default" in named else {}
    if named:
        keys["tokenizer.chat_templates"] = (list(named), ValueType.STRING)
    return keys | {f"{_KEY}.{name}": text for name, text in named.items()}


def unusable_templates(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for each chat template of a file that does not compile: other programs may be able to use it."""
    told = []
    names = ["", *metadata.get("tokenizer.chat_templates", [])]
    for key in (f"{_KEY}.{name}" if name else _KEY for name in names):
        try:
            ChatTemplate(metadata.get(key, ""))
        except TemplateError as error:
            told.append(f"{key} cannot be used, `halfbyte chat` will refuse it: {error}")
    return tuple(told)


def _named(given: Any, checkpoint: Checkpoint) -> dict[str, str]:
    """By name; a template without one is the default."""
    match given:
        case None:
            return {}
        case str():
            return {"default": given}
        case list():
            found: dict[str, str] = {}
            for choice in given:
                match choice:
                    case {"name": str(name), "template": str(text)} if name and _safe(name) not in found:
                        found[_safe(name)] = text
                    case _:
                        raise _refuse(checkpoint, choice)
            return found
    raise _refuse(checkpoint, given)


def _files(checkpoint: Checkpoint) -> dict[str, str]:
    old, default = checkpoint.json("chat_template.json"), checkpoint.text(_FILE)
    found = _named(old.get("chat_template"), checkpoint) if isinstance(old, dict) else {}
    if default is not None:
        found["default"] = default
    for path in sorted((checkpoint.path / _FOLDER).glob("*.jinja"))[: MAX_TEMPLATES + 1]:
        text = checkpoint.text(f"{_FOLDER}/{path.name}")
        if text is not None:
            found[_safe(path.stem)] = text
    return found


def _safe(name: str) -> str:
    """Names become part of a key."""
    return re.sub("[^A-Za-z0-9]", "_", name)[:64]


def _refuse(checkpoint: Checkpoint, got: Any) -> CheckpointError:
    path = checkpoint.path / "tokenizer_config.json"
    allowed = "a text, or a list of objects with a name of its own and template"
    return CheckpointError("no chat template", path=path, field="chat_template", got=got, allowed=allowed)
