"""Filters that make text, JSON and numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from jinja2 import filters as jinja_filters
from jinja2.runtime import Undefined
from markupsafe import Markup

from ...formats.errors import TemplateError
from . import methods
from .filters import filter_named
from .formatting import check_printf
from .list_filters import mapped
from .values import ITERATORS, Guard, checked_int

if TYPE_CHECKING:
    from .sandbox import RenderContext

_MAX_INDENT = 1000
_MAX_NUMBER_TEXT = 4300  # Python's own limit for int <-> str; 3.10.0 to 3.10.6 do not have it
_original: Final = jinja_filters.FILTERS


# -- text


def _text_filter(name: str, growth: int = 1) -> None:
    original = _original[name]

    @filter_named(name)
    def call(context: RenderContext, guard: Guard, value: Any) -> Any:
        text = guard.text(value)
        guard.meter.scan(len(text) * (8 if name == "title" else 1))  # title splits at every word
        guard.meter.require(4 * growth * len(text))
        return guard.meter.text(original(text))

    del call


for _name in ("upper", "lower", "capitalize", "title"):
    _text_filter(_name, growth=3)


@filter_named("trim")
def _trim(context: RenderContext, guard: Guard, value: Any, chars: str | None = None) -> Any:
    args = () if chars is None else (chars,)
    return methods.METHODS[str]["strip"](guard, guard.text(value), *args)


@filter_named("string")
def _string(context: RenderContext, guard: Guard, value: Any) -> Any:
    return guard.text(value)


@filter_named("safe")
def _safe(context: RenderContext, guard: Guard, value: Any) -> Any:
    return Markup(guard.text(value))


@filter_named("e", "escape")
def _escape(context: RenderContext, guard: Guard, value: Any) -> Any:
    text = guard.text(value)
    guard.meter.scan(5 * len(text))
    guard.meter.require(20 * len(text))
    return guard.meter.text(_original["escape"](text))


@filter_named("replace")
def _replace(context: RenderContext, guard: Guard, value: Any, old: Any, new: Any, count: int | None = None) -> Any:
    old, new = str(guard.text(old)), str(guard.text(new))
    return methods.replace(guard, str(guard.text(value)), old, new, -1 if count is None else count)


@filter_named("center")
def _center(context: RenderContext, guard: Guard, value: Any, width: int = 80) -> Any:
    text = guard.text(value)
    return methods.METHODS[type(text)]["center"](guard, text, width)


@filter_named("indent")
def _indent(
    context: RenderContext, guard: Guard, value: Any, width: int | str = 4, first: bool = False, blank: bool = False
) -> Any:
    text = guard.text(value)
    size = len(width) if isinstance(width, str) else int(width)
    if size > _MAX_INDENT:
        raise TemplateError(f"the chat template indents by {size} (allowed: {_MAX_INDENT})")
    guard.meter.scan(len(text))
    guard.meter.require(90 * len(text))  # the lines, if each character is one
    lines = len(text.splitlines()) + 1
    guard.meter.require(2 * 4 * (len(text) + lines * max(0, size)))
    guard.meter.scan(lines * (32 + max(0, size)))
    return guard.meter.text(_original["indent"](text, width, first, blank))


@filter_named("truncate")
def _truncate(context: RenderContext, guard: Guard, value: Any, *args: Any, **kwargs: Any) -> Any:
    guard.meter.require(8 * len(value))
    guard.meter.scan(len(value))
    return guard.meter.text(_original["truncate"](context.environment, value, *args, **kwargs))


@filter_named("wordcount")
def _wordcount(context: RenderContext, guard: Guard, value: Any) -> Any:
    text = guard.text(value)
    guard.tick(len(text) // 4)
    guard.meter.require(60 * len(text))
    return _original["wordcount"](text)


@filter_named("format")
def _format(context: RenderContext, guard: Guard, value: Any, *args: Any, **kwargs: Any) -> Any:
    if args and kwargs:
        raise TypeError("format takes positional or keyword arguments, not both")
    pattern = guard.text(value)
    values = kwargs or args
    check_printf(guard, pattern, tuple(kwargs.values()) if kwargs else args)
    return pattern % values


@filter_named("join")
def _join(context: RenderContext, guard: Guard, value: Any, d: Any = "", attribute: Any = None) -> Any:
    parts = guard.items(value)
    if attribute is not None:
        parts = mapped(context, guard, parts, attribute)
    texts = [str(guard.text(part)) for part in parts]
    return methods.METHODS[str]["join"](guard, str(guard.text(d)), texts)


@filter_named("tojson")
def _tojson(
    context: RenderContext,
    guard: Guard,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> Any:
    width = (len(indent) if isinstance(indent, str) else int(indent)) if indent is not None else 0
    if width > 32 or (separators is not None and sum(map(len, separators)) > 32):
        raise TemplateError(
            "the chat template asks for JSON with an indentation or separators of more than 32 characters"
        )
    before = guard.meter.fuel
    size = guard.weigh(value)
    visited = before - guard.meter.fuel
    guard.tick(visited)  # the encoder visits everything once more
    if width > 0:
        size += visited * (1 + width * 64)  # nesting is at most 64 in the input; deeper ends in the next line
        _check_nesting(value)
    guard.meter.require(4 * size)
    text = json.dumps(
        value, ensure_ascii=bool(ensure_ascii), indent=indent, separators=separators, sort_keys=bool(sort_keys)
    )
    guard.meter.scan(len(text))
    return guard.meter.text(text)


def _check_nesting(value: Any) -> None:
    level = [value]
    for _ in range(66):
        level = [
            child
            for item in level
            if isinstance(item, (dict, list, tuple))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise TemplateError("the chat template writes JSON that is nested more than 64 deep")


@filter_named("from_json")
def _from_json(context: RenderContext, guard: Guard, value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError("from_json takes a string")
    guard.tick(1 + len(value) // 4)
    guard.meter.allocate(32 * len(value) + 64)  # '[[],[],...': 3 characters make an object of 64 bytes
    return json.loads(value, parse_int=lambda digits: checked_int(int(digits[:_MAX_NUMBER_TEXT])))


# -- numbers


@filter_named("abs")
def _abs(context: RenderContext, guard: Guard, value: Any) -> Any:
    if not isinstance(value, (int, float)):
        raise TypeError("abs takes a number")
    return abs(value)


@filter_named("int")
def _int(context: RenderContext, guard: Guard, value: Any, default: Any = 0, base: int = 10) -> Any:
    _check_number(value)
    return checked_int(_original["int"](value, default, base))


@filter_named("float")
def _float(context: RenderContext, guard: Guard, value: Any, default: Any = 0.0) -> Any:
    _check_number(value)
    return _original["float"](value, default)


@filter_named("round")
def _round(context: RenderContext, guard: Guard, value: Any, precision: int = 0, method: str = "common") -> Any:
    if not isinstance(value, (int, float)) or not isinstance(precision, int):
        raise TypeError("round takes a number and an integer precision")
    if abs(precision) > 300:
        raise TemplateError(f"the chat template rounds to {precision:.9g} digits (allowed: 300)")
    return _original["round"](value, precision, method)


def _check_number(value: Any) -> None:
    if isinstance(value, str) and len(value) > _MAX_NUMBER_TEXT:
        raise TemplateError(f"the chat template converts a text of {len(value):,} characters to a number")
    if not isinstance(value, (str, int, float, type(None), list, tuple, dict, range, Undefined, *ITERATORS)):
        raise TypeError(f"a {type(value).__name__} is not a number")
