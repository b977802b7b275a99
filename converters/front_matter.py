"""The YAML block at the top of a model card, as texts, lists and objects of texts.

Nothing is made of the texts: a language "no" is not False, and a version "1.10" no number. Cards are hostile until they
are read: size, depth and number of items have bounds, and there are no aliases, with which some bytes can stand for
billions of items.
"""

from __future__ import annotations

from typing import Any

import yaml  # comes with gguf and huggingface_hub

MAX_CHARS, MAX_DEPTH, MAX_ITEMS = 1 << 18, 16, 10_000
_OPENS, _CLOSES = (yaml.SequenceStartEvent, yaml.MappingStartEvent), (yaml.SequenceEndEvent, yaml.MappingEndEvent)


class FrontMatterError(Exception):
    """The block cannot be read; the message says why."""


def front_matter(text: str) -> dict[str, Any]:
    """What stands between the first line, "---", and the next such line. Empty where there is no such block."""
    lines = text.splitlines()
    if not lines or lines[0].rstrip() != "---":
        return {}
    end = next((i for i, line in enumerate(lines) if i and line.rstrip() == "---"), None)
    if end is None:
        raise FrontMatterError("the block has no end")
    block = "\n".join(lines[1:end]).replace("\t", "  ")
    if len(block) > MAX_CHARS:
        raise FrontMatterError(f"{len(block):,} characters; {MAX_CHARS:,} are allowed")
    try:
        _check(block)
        found = yaml.load(block, yaml.BaseLoader)  # texts, lists and dicts, nothing else
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 2}: " if mark is not None else ""
        raise FrontMatterError(f"{where}{_reason(error)}") from None
    if found in (None, ""):
        return {}
    if not isinstance(found, dict):
        raise FrontMatterError("not an object")
    return found


def _check(block: str) -> None:
    """Look at the parts one by one, before anything is made of them."""
    depth = 0
    for count, event in enumerate(yaml.parse(block, yaml.BaseLoader)):
        depth += isinstance(event, _OPENS) - isinstance(event, _CLOSES)
        if isinstance(event, yaml.AliasEvent):
            raise FrontMatterError("aliases are not read")
        if not _is_text(getattr(event, "value", "")):
            raise FrontMatterError("half of a surrogate pair")
        if depth > MAX_DEPTH or count > MAX_ITEMS:
            raise FrontMatterError("too many items, or too deep")


def _reason(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or getattr(error, "reason", None) or "no YAML"


def _is_text(value: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in value)
