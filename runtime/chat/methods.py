"""The attributes a template can reach: an allowlist by exact type. Nothing here calls Python's getattr on data.

A method is looked up as a name in a table and called through a function of ours that pays first, so there is no object
to climb from: `''.__class__` is an error, not a class.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

from jinja2.filters import _GroupTuple
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.utils import Cycler, Joiner, Namespace
from markupsafe import Markup

from ...formats.errors import TemplateError
from .formatting import format_text
from .values import attributes

if TYPE_CHECKING:
    from .values import Guard

_MISSING: Final = object()
_Call = Callable[..., Any]  # (guard, self, *args, **kwargs)


class Method:
    """A method bound to its value, as a template sees it: it can be called and nothing else."""

    __slots__ = ("call", "name", "owner")

    def __init__(self, owner: Any, name: str, call: _Call) -> None:
        self.owner, self.name, self.call = owner, name, call


def attribute(value: Any, name: str, undefined: Callable[..., Undefined]) -> Any:
    """`value.name`: a method or field from the tables, else a dictionary's item, else undefined.

    Raises TemplateError for what exists in Python but is not for templates.
    """
    table = METHODS.get(type(value))
    if table is not None:
        method = table.get(name)
        if method is not None:
            return Method(value, name, method)
        if type(value) is dict and name in value:
            if hasattr(dict, name) and not name.startswith("_"):
                raise _refused(value, name)  # plain jinja2 gives the method (d.update), so d['update'] is meant
            return value[name]
    else:
        found = _field(value, name)
        if found is not _MISSING:
            return found
    if name.startswith("_") or (table is not None and hasattr(type(value), name)):
        raise _refused(value, name)
    return undefined(obj=value, name=name)


def item(value: Any, index: Any, undefined: Callable[..., Undefined]) -> Any:
    """`value[index]`; with a string index that is no item, `value.index`."""
    kind = type(value)
    if kind is dict:
        try:
            return (
                value[index]
                if isinstance(index, (str, int, float, bool, type(None)))
                else undefined(obj=value, name=index)
            )
        except KeyError:
            pass
    elif isinstance(value, (str, list, tuple, range)):
        if not isinstance(index, str):
            try:
                return value[index]
            except (TypeError, IndexError):
                return undefined(obj=value, name=index)
    elif isinstance(value, Undefined):
        return value[index]  # raises the error that names the variable
    if isinstance(index, str):
        return attribute(value, index, undefined)
    return undefined(obj=value, name=index)


def _refused(value: object, name: str) -> TemplateError:
    return TemplateError(f"the chat template reads {name!r:.60} of a {type(value).__name__}, which is not allowed")


def _field(value: Any, name: str) -> Any:
    """A field of one of jinja2's own objects, or _MISSING."""
    if isinstance(value, Undefined):
        return value._fail_with_undefined_error()
    if type(value) is Namespace and not name.startswith("_"):
        return attributes(value).get(name, _MISSING)
    if name in _FIELDS.get(type(value), ()):
        found = getattr(value, name)
        return Method(found, name, _call_field) if type(found) is MethodType else found
    return _MISSING


def _call_field(guard: Guard, method: Callable[..., Any], *args: Any) -> Any:
    return method(*[guard.weighed(arg) for arg in args])  # loop.changed compares them


def _linear(name: str, growth: int = 1, kind: type = str) -> _Call:
    """A str method whose result has at most `growth` times the characters."""
    function = getattr(kind, name)

    def call(guard: Guard, owner: str, *args: Any) -> Any:
        guard.meter.scan(len(owner) + _lengths(args))
        guard.meter.require(4 * growth * len(owner))
        return _paid(guard, function(owner, *args))

    return call


def _product(name: str, kind: type = str) -> _Call:
    """A str method that may compare each character with all of its argument: strip('abc'), rfind('abc')."""
    function = getattr(kind, name)

    def call(guard: Guard, owner: str, *args: Any) -> Any:
        guard.meter.scan(len(owner))
        if args and isinstance(args[0], str):
            guard.tick((len(owner) * len(args[0])) >> 7)
        guard.meter.require(4 * len(owner))
        return _paid(guard, function(owner, *args))

    return call


def _pieces(name: str, kind: type = str) -> _Call:
    """split, rsplit, splitlines: many small strings out of a large one."""
    function = getattr(kind, name)

    def call(guard: Guard, owner: str, *args: Any, **kwargs: Any) -> Any:
        separator = args[0] if args else kwargs.get("sep")
        guard.meter.scan(len(owner))
        if isinstance(separator, str) and separator:
            if name == "rsplit":
                guard.tick((len(owner) * len(separator)) >> 7)
            count = owner.count(separator) + 1
        else:
            count = len(owner) // 2 + 1
        guard.meter.require(len(owner) * 4 + 88 * count)
        result = function(owner, *args, **kwargs)
        guard.tick(len(result))
        guard.meter.allocate(len(owner) * (1 if owner.isascii() else 4) + 88 * len(result))
        return result

    return call


def replace(guard: Guard, owner: str, old: Any, new: Any, count: Any = -1) -> Any:
    """`owner.replace(old, new, count)`, its size known in advance."""
    guard.meter.scan(len(owner))
    if isinstance(old, str) and isinstance(new, str):
        hits = owner.count(old)
        grown = max(0, len(new) * (5 if isinstance(owner, Markup) else 1) - len(old)) * hits
        guard.meter.require(4 * (len(owner) + grown))
        guard.meter.scan(len(owner) + grown)
    return _paid(guard, owner.replace(old, new, count))


def pad(name: str, kind: type = str) -> _Call:
    """center, ljust, rjust, zfill: as wide as the template says."""
    function = getattr(kind, name)

    def call(guard: Guard, owner: str, width: Any, *fill: Any) -> Any:
        guard.meter.require(4 * max(len(owner), int(width)))
        return _paid(guard, function(owner, width, *fill))

    return call


def join(guard: Guard, owner: str, values: Any) -> Any:
    """`owner.join(values)`; values must be strings, as in Python."""
    values = guard.items(values)
    growth = 5 if isinstance(owner, Markup) else 1
    size = growth * (sum(len(v) for v in values if isinstance(v, str)) + len(owner) * len(values))
    guard.meter.require(4 * size)
    guard.meter.scan(size)
    return _paid(guard, owner.join(values))


def _paid(guard: Guard, result: Any) -> Any:
    if isinstance(result, str):
        return guard.meter.text(result)
    if isinstance(result, tuple):  # partition
        for part in result:
            guard.meter.text(part)
    return result


def _lengths(args: tuple[Any, ...]) -> int:
    return sum(len(a) for a in args if isinstance(a, str))


def _text_methods(kind: type) -> dict[str, _Call]:
    table: dict[str, _Call] = {"replace": replace, "join": join, "format": format_text_method}
    for name in ("upper", "lower", "title", "capitalize", "swapcase", "casefold"):
        table[name] = _linear(name, growth=3, kind=kind)  # upper() of a ligature has three letters
    for name in ("count", "find", "index", "startswith", "endswith", "removeprefix", "removesuffix", "partition"):
        table[name] = _linear(name, kind=kind)
    for name in ("isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric"):
        table[name] = _linear(name, kind=kind)
    for name in ("isprintable", "isspace", "istitle", "isupper"):
        table[name] = _linear(name, kind=kind)
    for name in ("strip", "lstrip", "rstrip", "rfind", "rindex", "rpartition"):
        table[name] = _product(name, kind=kind)
    for name in ("split", "rsplit", "splitlines"):
        table[name] = _pieces(name, kind=kind)
    for name in ("center", "ljust", "rjust", "zfill"):
        table[name] = pad(name, kind=kind)
    return table


def format_text_method(guard: Guard, owner: str, *args: Any, **kwargs: Any) -> str:
    return format_text(guard, owner, args, kwargs)


def _get(guard: Guard, owner: dict[Any, Any], key: Any, default: Any = None) -> Any:
    return owner.get(guard.key(key), default)


def _view(name: str) -> _Call:
    function = getattr(dict, name)
    return lambda guard, owner: function(owner)


def _copy(guard: Guard, owner: Any) -> Any:
    guard.tick(1 + len(owner) // 4)
    guard.meter.allocate(64 + 100 * len(owner))
    return owner.copy()


def _count(guard: Guard, owner: Any, value: Any) -> int:
    guard.contains(value, owner)  # pays for the comparisons
    return int(owner.count(value))


def _index(guard: Guard, owner: Any, value: Any) -> int:
    guard.contains(value, owner)
    return int(owner.index(value))


def _append(guard: Guard, owner: list[Any], value: Any) -> None:
    guard.meter.allocate(16)
    owner.append(value)


def _pop(guard: Guard, owner: list[Any], index: Any = -1) -> Any:
    guard.tick(1 + (len(owner) >> 6))
    return owner.pop(index)


METHODS: Final[dict[type, dict[str, _Call]]] = {
    str: _text_methods(str),
    Markup: _text_methods(Markup),
    dict: {"get": _get, "items": _view("items"), "keys": _view("keys"), "values": _view("values"), "copy": _copy},
    # Kimi K2 keeps a queue in a list. The lists are copies of this render, so changing them harms nobody.
    list: {"append": _append, "pop": _pop, "index": _index, "count": _count, "copy": _copy},
    tuple: {"index": _index, "count": _count},
    int: {},
    float: {},
    bool: {},
    type(None): {},
    range: {},
}
# fmt: off
_LOOP_FIELDS: Final = frozenset((
    "index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0", "previtem", "nextitem",
    "cycle", "changed",
))
# fmt: on
_FIELDS: Final[dict[type, frozenset[str]]] = {
    LoopContext: _LOOP_FIELDS,
    Cycler: frozenset({"next", "reset", "current"}),
    Joiner: frozenset(),
    Macro: frozenset({"name"}),
    _GroupTuple: frozenset({"grouper", "list"}),
}
