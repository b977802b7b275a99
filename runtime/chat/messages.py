"""Checks a conversation and copies it into plain lists, dicts, strings and numbers.

The copy is what a template sees: no object of the caller's can be reached, called or changed by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...formats.errors import InvalidRequest

MAX_NESTING = 64  # deeper JSON than any tool schema; keeps every recursive C routine far from its stack limit
MAX_INT_BITS = 4096  # 1,233 digits: below Python's own limit of 4,300 for int <-> str


class MessageError(InvalidRequest):
    """The conversation, the tools or a template variable handed to `render` has the wrong form."""


class Copier:
    """Copies JSON-like values and counts them: `nodes` values, `chars` characters."""

    def __init__(self) -> None:
        self.nodes = 0
        self.chars = 0

    def copy(self, value: object, where: str, depth: int = 0) -> object:
        """Plain copy of `value`. Raises MessageError naming `where` for anything that JSON cannot hold."""
        self.nodes += 1
        if depth > MAX_NESTING:
            raise MessageError(f"{where} is nested more than {MAX_NESTING} deep")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            self.chars += len(value)
            return str.__str__(value)  # an exact str, whatever the subclass overrides
        if isinstance(value, int):
            if value.bit_length() > MAX_INT_BITS:
                raise MessageError(f"{where} is an integer of {value.bit_length()} bits (allowed: {MAX_INT_BITS})")
            return int(value)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, Mapping):
            return {
                self._key(k, where): self.copy(v, f"{where}.{k}" if depth < 4 else where, depth + 1)
                for k, v in value.items()
            }
        if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
            return [self.copy(v, f"{where}[{i}]" if depth < 4 else where, depth + 1) for i, v in enumerate(value)]
        raise MessageError(f"{where} is a {type(value).__name__}; only JSON-like values can be shown to a template")

    def _key(self, key: object, where: str) -> str:
        if not isinstance(key, str):
            raise MessageError(f"{where} has the key {key!r}; keys must be strings")
        self.chars += len(key)
        return str.__str__(key)


def check_messages(messages: object) -> None:
    """Raise MessageError unless `messages` is a non-empty list of dicts as chat APIs define them.

    Each has a str `role`; `content` is a str, a list of parts (dicts with a str `type`), None or absent; `tool_calls`
    is a list of dicts with a named function. Other keys are free: templates read reasoning_content, name and more.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise MessageError(f"messages must be a list of dicts, not a {type(messages).__name__}")
    if not messages:
        raise MessageError("messages is empty; give at least one, such as {'role': 'user', 'content': 'Hello'}")
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, Mapping):
            raise MessageError(f"{where} must be a dict with 'role' and 'content', not a {type(message).__name__}")
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise MessageError(f"{where}.role must be a string such as 'user' or 'assistant' (got {role!r:.80})")
        _check_content(message.get("content"), where)
        _check_tool_calls(message.get("tool_calls"), where)


def check_dicts(value: object, where: str) -> None:
    """Raise MessageError unless `value` is None or a list of dicts."""
    if value is None:
        return
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise MessageError(f"{where} must be a list of dicts or None, not a {type(value).__name__}")
    for i, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise MessageError(f"{where}[{i}] must be a dict, not a {type(item).__name__}")


def _check_content(content: object, where: str) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray, memoryview)):
        raise MessageError(f"{where}.content must be a string, a list of parts or None, not a {type(content).__name__}")
    for i, part in enumerate(content):
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise MessageError(
                f"{where}.content[{i}] must be a dict with a string 'type', e.g. {{'type': 'text', ...}}"
            )


def _check_tool_calls(calls: object, where: str) -> None:
    check_dicts(calls, f"{where}.tool_calls")
    if calls is None:
        return
    assert isinstance(calls, Sequence)
    for i, call in enumerate(calls):
        function = call.get("function", call)  # some templates take the flat form {'name', 'arguments'}
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise MessageError(f"{where}.tool_calls[{i}].function must be a dict with a string 'name'")
