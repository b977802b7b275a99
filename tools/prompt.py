"""Where a prompt comes from: the argument, a pipe, or both."""

from __future__ import annotations

import os
import sys

import click

from ..formats.errors import HalfbyteError
from .console import is_terminal

MAX_STDIN = 64 << 20  # bytes; far more than any context holds


def read_prompt(argument: str | None) -> str:
    """The prompt: the argument, then what is piped in, a blank line between them. "-" asks for the pipe alone.

    A terminal is read only for "-", until end of file. An argument counts also when it is empty.
    Raises click.UsageError when there is nothing.
    """
    wants_stdin = argument == "-"
    written = "" if argument is None or wants_stdin else argument
    piped = read_stdin() if wants_stdin or not is_terminal(sys.stdin) else ""
    prompt = "\n\n".join(part for part in (written, piped) if part)
    if not prompt and (argument is None or wants_stdin):
        raise click.UsageError("no prompt: give one as an argument or through a pipe", click.get_current_context(True))
    return prompt


class Text(click.types.StringParamType):
    """An argument that is a text. Where the locale is not UTF-8, Python has kept its bytes in another form."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            try:
                return os.fsencode(value).decode()
            except UnicodeError:
                self.fail(f"{ascii(value)[:60]} is not UTF-8 text; convert it first", param, ctx)
        return value


def read_stdin() -> str:
    """All of standard input as text, without its last line break; "" when it is closed."""
    if sys.stdin is None:
        return ""
    try:
        data = sys.stdin.buffer.read(MAX_STDIN + 1)
    except (OSError, ValueError):
        return ""  # closed by whoever started us
    if len(data) > MAX_STDIN:
        raise HalfbyteError(f"standard input is longer than {MAX_STDIN:,} bytes; no context holds that much")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HalfbyteError(f"standard input is not UTF-8 text (byte {error.start:,}); convert it first") from error
    return text.replace("\r\n", "\n").removesuffix("\n")
