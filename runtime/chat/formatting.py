"""Bounds for the two format languages: `'%5d' % x` and `'{:>5}'.format(x)`; and a strftime that is the same everywhere.

A width is the cheapest bomb of all ('%999999999d'), and the fields of `str.format` can read attributes. So only plain
fields with widths of up to three digits pass; everything else is an error, not a different result.
"""

from __future__ import annotations

import re
from datetime import datetime
from string import Formatter
from typing import TYPE_CHECKING, Any, Final

from ...formats.errors import TemplateError

if TYPE_CHECKING:
    from .values import Guard

_MAX_WIDTH = 999
_PRINTF: Final = re.compile(r"%(?:\((\w*)\))?[#0\- +]{0,5}(\*|\d{0,9})(?:\.(\*|\d{0,9}))?[hlL]?([a-zA-Z%])")
_SPEC: Final = re.compile(r"(?:.?[<>=^])?[ +\-]?z?#?0?(\d{0,9})[,_]?(?:\.(\d{1,9}))?[a-zA-Z%]?", re.DOTALL)
_DIRECTIVE: Final = re.compile(r"%(-?)([aAbBcdHIjmMpSUwWxXyYZzfeDTFhn%])")
_MAX_DATE_FORMAT = 256


def check_printf(guard: Guard, pattern: str, values: Any) -> None:
    """Pay for `pattern % values` in advance; TemplateError for a width that is too large or taken from the values."""
    if type(pattern) is not str:
        raise TemplateError("the chat template formats a |safe string with %, which is not supported")
    parts = values if isinstance(values, tuple) else (values,)
    largest = max((guard.weigh(part) for part in parts), default=0)
    guard.meter.scan(len(pattern))
    fields = 0
    for match in _PRINTF.finditer(pattern):
        fields += 1
        _check_widths(match[2], match[3])
    if "%" in _PRINTF.sub("", pattern):
        raise TemplateError("the chat template uses a % format with an unsupported field")
    size = len(pattern) + fields * (largest + _MAX_WIDTH + 400)  # '%f' of 1e308 has 309 digits
    guard.meter.allocate(4 * size)
    guard.meter.scan(size)


def format_text(guard: Guard, pattern: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """`pattern.format(*args, **kwargs)` with plain fields only: {}, {0}, {name}, each with a spec of bounded width."""
    if type(pattern) is not str:
        raise TemplateError("the chat template formats a |safe string, which is not supported")
    guard.meter.scan(len(pattern))
    largest = max((guard.weigh(value) for value in (*args, *kwargs.values())), default=0)
    fields = 0
    for _, name, spec, _conversion in Formatter().parse(pattern):
        if name is None:
            continue
        fields += 1
        match = _SPEC.fullmatch(spec or "")
        if not re.fullmatch(r"\w*", name) or name.startswith("_"):
            raise TemplateError(
                f"the chat template's format field {name!r:.60} is not allowed: only names and numbers are"
            )
        if match is None:
            raise TemplateError(f"the chat template's format spec {spec!r:.60} is not supported")
        _check_widths(match[1], match[2])
    size = len(pattern) + fields * (largest + _MAX_WIDTH + 400)
    guard.meter.require(4 * size)
    guard.meter.scan(size)
    return guard.meter.text(pattern.format(*args, **kwargs))


def _check_widths(*widths: str | None) -> None:
    for width in widths:
        if width == "*" or (width and int(width) > _MAX_WIDTH):
            raise TemplateError(f"the chat template uses a format width of {width} (allowed: {_MAX_WIDTH})")


def strftime(moment: datetime, pattern: object) -> str:
    """`moment.strftime(pattern)`, directive by directive.

    The C library behind strftime takes field widths ('%999999d') and knows '%-d' only on some systems; here widths are
    refused and '%-d' drops the leading zeros on every system.
    """
    if not isinstance(pattern, str) or len(pattern) > _MAX_DATE_FORMAT:
        raise TemplateError(f"strftime_now takes a format of at most {_MAX_DATE_FORMAT} characters")
    if _DIRECTIVE.sub("", pattern).count("%"):
        raise TemplateError(f"the chat template's date format {pattern!r:.60} has an unsupported directive")
    return _DIRECTIVE.sub(lambda match: _directive(moment, match[1], match[2]), pattern)


def _directive(moment: datetime, flag: str, letter: str) -> str:
    if letter == "%":
        return "%"
    if letter == "e":  # space-padded day: not known to every C library
        return str(moment.day) if flag else f"{moment.day:2d}"
    text = moment.strftime(_COMPOSED.get(letter, f"%{letter}"))
    return (text.lstrip("0") or "0") if flag and text.isdigit() else text


_COMPOSED: Final = {"D": "%m/%d/%y", "T": "%H:%M:%S", "F": "%Y-%m-%d", "h": "%b", "n": "\n"}


def printable(text: str, limit: int = 300) -> str:
    """`text` for a message: shortened; what is not printable escaped, since a template may aim at the terminal."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)
