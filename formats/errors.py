"""The exceptions of Halfbyte.

    HalfbyteError                      exit code 2: the caller can do something about each of these
    |-- ModelFileError                 3: a file is not what it claims to be (path, offset, field, value, bound)
    |   |-- (formats.gguf.errors)      one subclass per way to be wrong
    |-- UnsupportedError               5: a valid file or request that this version cannot serve
    |-- ResourceError                  4: not enough memory or disk
    |-- TokenizerError, TemplateError  3: the tokenizer or the chat template of a model is broken
    |-- InvalidRequest                 2: arguments that are wrong in themselves (also a ValueError)
    |-- ContextOverflow                2: more tokens than the context holds (both numbers)
    |-- Cancelled                      130: stopped on request; the model stays usable
"""

from __future__ import annotations

import os


class HalfbyteError(Exception):
    """Base of every error raised on purpose. `exit_code` is what the command line returns for it."""

    exit_code = 2


class ModelFileError(HalfbyteError):
    """A file is damaged, hostile or contradicts itself.

    The message says where (file, byte offset, field), what was found, what is allowed and what to do.
    """

    exit_code = 3

    def __init__(
        self,
        problem: str,
        *,
        path: str | os.PathLike[str] | None = None,
        offset: int | None = None,
        field: str | None = None,
        got: object = None,
        allowed: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.problem, self.path, self.offset, self.field = problem, path, offset, field
        self.got, self.allowed, self.hint = got, allowed, hint
        super().__init__(self._describe())

    def _describe(self) -> str:
        where = [os.fspath(self.path)] if self.path is not None else []
        if self.offset is not None:
            where.append(f"at byte {self.offset:,}")
        if self.field is not None:
            where.append(repr(self.field))
        text = f"{', '.join(where)}: {self.problem}" if where else self.problem
        if self.got is not None:
            text += f" (got {_short(self.got)}{f', allowed: {self.allowed}' if self.allowed else ''})"
        elif self.allowed:
            text += f" (allowed: {self.allowed})"
        return f"{text}. {self.hint}" if self.hint else text


class UnsupportedError(HalfbyteError):
    """The file or request is valid, but this version cannot serve it."""

    exit_code = 5


class ResourceError(HalfbyteError):
    """Not enough memory or disk space; the message says how much is needed and how much there is."""

    exit_code = 4


class TokenizerError(HalfbyteError):
    """The tokenizer data of a model is missing or broken."""

    exit_code = 3


class TemplateError(HalfbyteError):
    """A chat template is broken, hostile, or exceeded its time or output limit."""

    exit_code = 3


class InvalidRequest(HalfbyteError, ValueError):
    """A request that can never work, found before any work was done."""


class ContextOverflow(HalfbyteError):
    """The request needs more tokens than the context holds. Never truncated silently."""

    def __init__(self, needed: int, available: int) -> None:
        self.needed, self.available = needed, available
        super().__init__(
            f"{needed} tokens do not fit into a context of {available}; "
            f"shorten the prompt, ask for fewer tokens, or load the model with context={needed} or more"
        )

    def __reduce__(self) -> tuple[type[ContextOverflow], tuple[int, int]]:
        return type(self), (self.needed, self.available)  # pickle would call it with the message


class Cancelled(HalfbyteError):
    """The operation was cancelled by its caller; the model stays usable."""

    exit_code = 130


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
