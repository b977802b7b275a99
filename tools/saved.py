"""Conversations as files: what `/save` writes and `/load` reads. Whatever the file is, CommandError says why not."""

from __future__ import annotations

import json
import os
import shlex
import stat
from pathlib import Path
from typing import Any

from ..formats.errors import HalfbyteError

Message = dict[str, str]
ROLES = ("system", "user", "assistant")
MAX_FILE = 64 << 20  # bytes of a saved conversation
_BEGIN = '{\n "messages": ['  # how each file begins, so that a partial file of ours is known as such


class CommandError(HalfbyteError):
    """A slash command that cannot be carried out; the conversation is unchanged."""


def write(path: Path, messages: list[Message]) -> None:
    """The complete conversation under this name, or what was there before."""
    from ..formats.gguf.durable import write_durably  # NumPy, which `halfbyte chat --help` does without

    text = json.dumps({"messages": messages}, indent=1, ensure_ascii=False)
    try:
        write_durably(path, (text + "\n").encode("utf-8", "replace"), begins=_BEGIN.encode())
    except HalfbyteError as error:
        raise CommandError(str(error)) from error


def read(path: Path) -> list[Message]:
    """The messages of a file, the system message first if there is one."""
    try:
        return _checked(json.loads(_content(path).decode("utf-8")))
    except OSError as error:
        raise CommandError(f"{path}: cannot read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{path}: not a saved conversation: {error}") from error


def _content(path: Path) -> bytes:
    """All of a regular file. Its size is no bound: files of /proc say 0, and others may grow."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise CommandError(f"{path}: not a regular file")
    with open(path, "rb", opener=_without_waiting) as file:
        data = file.read(MAX_FILE + 1) or b""  # None: there was nothing yet
    if len(data) > MAX_FILE:
        raise CommandError(f"{path}: longer than {MAX_FILE:,} bytes; not a conversation")
    return data


def _without_waiting(name: str, flags: int) -> int:
    """Open, but wait for no writer: a pipe may have come under this name just now."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _checked(document: Any) -> list[Message]:
    """The messages of a loaded document. ValueError says what is wrong; any file may be named."""
    messages = document.get("messages") if isinstance(document, dict) else document
    if not isinstance(messages, list):
        raise ValueError('expected a list "messages"')
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise ValueError(f'message {i} needs a "role" of {", ".join(ROLES)}')
        if not isinstance(message.get("content"), str):
            raise ValueError(f'message {i} needs a "content" of text')
        if message["role"] == "system" and i:
            raise ValueError(f"message {i}: only the first may be a system message")
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def named(argument: str, usage: str) -> Path:
    """The file that a person means: quoted or not, ~ for the home folder."""
    try:
        words = shlex.split(argument) if argument[:1] in ("'", '"') and argument[-1:] == argument[:1] else [argument]
        if len(words) != 1 or not words[0]:
            raise CommandError(f"which file? {usage}")
        if "\0" in words[0]:
            raise ValueError("it holds a NUL")
        return Path(words[0]).expanduser()
    except (ValueError, RuntimeError) as error:  # a quote without its end; ~ of nobody
        raise CommandError(f"{argument} names no file: {error}") from error
