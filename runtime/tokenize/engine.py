"""Calling the Rust engine: every failure, a panic included, becomes a TokenizerError."""

from __future__ import annotations

from typing import Any

from ...formats.errors import TokenizerError


def run(engine: Any, text: str) -> list[int]:
    """Ids of `text`. The engine's regular expressions give up after 10 million steps on one match."""
    try:
        return list(engine.encode(text, add_special_tokens=False).ids)
    except Exception as error:
        raise TokenizerError(f"this text of {len(text):,} characters cannot be tokenized: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the binding's panic derives from BaseException
            raise
        raise TokenizerError(f"this text of {len(text):,} characters cannot be tokenized: {error}") from error
