"""Patterns in Oniguruma's syntax, compiled for Python's `re`.

The engine inside `tokenizers` needs 1 to 3 microseconds and some hundred bytes per word; `re.split` needs a tenth,
which decides how a million one-character words fare. What `re` lacks is classes: \\p{...}, set intersection, and \\s,
\\d and \\w as Oniguruma has them. They are written out as ranges here, from the generated table unicode_classes.py.
Syntax outside of classes is passed through, so a pattern may use only what means the same in both.

A class of hundreds of ranges takes milliseconds to compile and is slow beyond the Basic Multilingual Plane, so there
are three forms of each pattern, for texts of ASCII, of the BMP, and of everything.
"""

from __future__ import annotations

import re
from functools import cache

from .unicode_classes import RANGES

Ranges = tuple[tuple[int, int], ...]  # first and last code point of each run, ascending

_ASCII, _BMP, _ALL = 0x7F, 0xFFFF, 0x10FFFF
_ESCAPES = {"r": "\r", "n": "\n", "t": "\t"}


def limit_of(text: str) -> int:
    """The smallest of the three limits that holds for every character of `text`."""
    if text.isascii():
        return _ASCII
    return _BMP if max(text) <= "\uffff" else _ALL


@cache
def compile_split(pattern: str, limit: int) -> re.Pattern[str]:
    """A pattern whose `split` gives gaps and matches in turn, for texts of code points up to `limit`."""
    return re.compile(f"({_translate(pattern, limit)})")


def _translate(pattern: str, limit: int) -> str:
    out, i = [], 0
    while i < len(pattern):
        char = pattern[i]
        if char == "[":
            negated, ranges, i = _parse_set(pattern, i + 1)
            out.append(_write_class(negated, ranges, limit))
        elif char == "\\" and pattern[i + 1] in "psSdw":
            negated, ranges, i = _parse_escape(pattern, i)
            out.append(_write_class(negated, ranges, limit))
        elif char == "\\":
            out.append(pattern[i : i + 2])
            i += 2
        else:
            out.append(char)
            i += 1
    return "".join(out)


def _parse_set(pattern: str, i: int) -> tuple[bool, Ranges, int]:
    """(negated, members, index behind the bracket) of the set whose inside begins at `i`."""
    negated = pattern[i] == "^"
    i += negated
    found: list[tuple[int, int]] = []
    while pattern[i] != "]":
        if pattern.startswith("&&[^", i):  # intersection with a complement: a difference
            _, excluded, i = _parse_set(pattern, i + 3)
            return negated, _difference(_union(found), excluded), i + 1
        if pattern[i] == "\\" and pattern[i + 1] in "psSdw":
            inverted, ranges, i = _parse_escape(pattern, i)
            found += _complement(ranges) if inverted else ranges
            continue
        first, i = _parse_char(pattern, i)
        last = first
        if pattern[i] == "-" and pattern[i + 1] != "]":
            last, i = _parse_char(pattern, i + 1)
        found.append((first, last))
    return negated, _union(found), i + 1


def _parse_char(pattern: str, i: int) -> tuple[int, int]:
    if pattern[i] == "\\":
        return ord(_ESCAPES.get(pattern[i + 1], pattern[i + 1])), i + 2
    return ord(pattern[i]), i + 1


def _parse_escape(pattern: str, i: int) -> tuple[bool, Ranges, int]:
    """(negated, members, index behind) of \\p{Name}, \\s, \\S, \\d or \\w at `i`."""
    name = pattern[i + 1]
    if name == "p":
        end = pattern.index("}", i)
        return False, _members(pattern[i + 3 : end]), end + 1
    return name == "S", _members(name.lower()), i + 2


@cache
def _members(name: str) -> Ranges:
    names = ("Lu", "Ll", "Lt", "Lm", "Lo") if name == "L" else (name,)
    words = [word.partition("-") for name in names for word in RANGES[name].split()]
    return _union([(int(first, 16), int(last or first, 16)) for first, _, last in words])


def _union(ranges: list[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def _complement(ranges: Ranges) -> Ranges:
    return _difference(((0, _ALL),), ranges)


def _difference(ranges: Ranges, excluded: Ranges) -> Ranges:
    """Members of `ranges` outside of `excluded`."""
    left: list[tuple[int, int]] = []
    for first, last in ranges:
        for low, high in excluded:
            if high < first or low > last:
                continue
            if low > first:
                left.append((first, low - 1))
            first = high + 1
        if first <= last:
            left.append((first, last))
    return tuple(left)


def _write_class(negated: bool, ranges: Ranges, limit: int) -> str:
    clipped = [(first, min(last, limit)) for first, last in ranges if first <= limit]
    if not clipped:
        return f"[\\x00-\\U{limit:08x}]" if negated else "(?!)"
    body = "".join(_quote(a) if a == b else f"{_quote(a)}-{_quote(b)}" for a, b in clipped)
    return f"[{'^' if negated else ''}{body}]"


def _quote(point: int) -> str:
    return chr(point) if point > _ASCII else f"\\x{point:02x}"
