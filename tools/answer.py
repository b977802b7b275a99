"""Show an answer while it is made, and say what it cost."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from . import console

if TYPE_CHECKING:
    from ..runtime.engine.generation import Generation, Usage


def show(generation: Generation) -> None:
    """Stream the answer to stdout and end its last line. Ctrl-C cancels it and is raised again, after the line end."""
    last = "\n"
    try:
        for piece in generation:
            console.stream(piece)
            last = piece or last
    finally:
        if not last.endswith("\n"):
            console.say()


def has_audience() -> bool:
    """Is a person watching both streams, so that remarks disturb no pipe?"""
    return console.is_terminal(sys.stdout) and console.is_terminal(sys.stderr)


def cost(generation: Generation) -> str:
    """One line: tokens, seconds, tokens per second, and why it ended."""
    usage = generation.usage
    cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
    return (
        f"{usage.prompt_tokens} prompt tokens{cached} in {usage.prompt_seconds:.2f} s, "
        f"{usage.completion_tokens} tokens in {usage.decode_seconds:.2f} s "
        f"({usage.tokens_per_second:.1f}/s), {generation.finish_reason}"
    )


def as_json(generation: Generation, model: str) -> dict[str, Any]:
    """The whole result of a generation that was read to its end."""
    result: dict[str, Any] = {
        "model": model,
        "text": generation.text,
        "ids": generation.ids,
        "finish_reason": generation.finish_reason,
        "usage": {
            "prompt_tokens": generation.usage.prompt_tokens,
            "cached_tokens": generation.usage.cached_tokens,
            "completion_tokens": generation.usage.completion_tokens,
        },
        "timings": timings(generation.usage),
    }
    if any(token.logprob is not None for token in generation.tokens):
        result["logprobs"] = [
            {"id": t.id, "text": t.text, "logprob": t.logprob, "top": [list(pair) for pair in t.top_logprobs or ()]}
            for t in generation.tokens
        ]
    return result


def timings(usage: Usage) -> dict[str, float]:
    """Seconds of each phase and tokens per second; 0.0 where nothing was done."""
    computed = usage.prompt_tokens - usage.cached_tokens
    return {
        "queue_seconds": usage.queue_seconds,
        "prompt_seconds": usage.prompt_seconds,
        "decode_seconds": usage.decode_seconds,
        "prompt_tps": computed / usage.prompt_seconds if usage.prompt_seconds > 0 else 0.0,
        "decode_tps": usage.tokens_per_second,
    }
