"""JSON of untrusted files, read as a strict parser in another language would read it.

Python's own parser takes NaN, lets the last of two equal names win, and has errors of its own for deep nesting and huge
numbers. What this one returns means the same to everybody.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DIGITS = 400  # of one number: more than float64 has, fewer than Python refuses to convert


class JsonError(ValueError):
    """The text is no JSON, or says something twice. `offset` counts characters, -1 where it is not known."""

    def __init__(self, problem: str, offset: int = -1) -> None:
        super().__init__(problem)
        self.problem, self.offset = problem, offset


def loads(text: str) -> Any:
    """Parse one JSON value into dict, list, str, int, float, bool and None. Raises JsonError."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
            parse_int=_bounded_int,
            parse_float=_finite_float,
        )
    except json.JSONDecodeError as error:
        raise JsonError(f"no valid JSON: {error.msg}", error.pos) from None
    except RecursionError:
        raise JsonError("JSON that is nested too deeply") from None
    if "\\u" in text and _holds_half_characters(value):
        raise JsonError("a JSON text holds half of a surrogate pair")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise JsonError(f"the name {name[:80]!r} stands twice in one JSON object")
            seen.add(name)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is no JSON number")


def _bounded_int(digits: str) -> int | float:
    if len(digits) > MAX_DIGITS:
        raise JsonError(f"a JSON number of {len(digits)} digits")
    return -0.0 if digits == "-0" else int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise JsonError(f"the JSON number {digits[:40]} is beyond float64")
    return value


def _holds_half_characters(value: Any) -> bool:
    """Whether any text in the value cannot be encoded."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and any("\ud800" <= char <= "\udfff" for char in one):
            return True
    return False
