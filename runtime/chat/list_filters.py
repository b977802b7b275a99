"""Filters over sequences and mappings. What they return lazily in jinja2 is computed at once here, and paid for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from jinja2 import filters as jinja_filters
from jinja2.runtime import Undefined

from ...formats.errors import TemplateError
from . import methods
from .filters import filter_named
from .values import Guard, once

if TYPE_CHECKING:
    from .sandbox import RenderContext

_original: Final = jinja_filters.FILTERS


@filter_named("length", "count")
def _length(context: RenderContext, guard: Guard, value: Any) -> Any:
    return len(value)


@filter_named("default", "d")
def _default(context: RenderContext, guard: Guard, value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    return _original["default"](value, default_value, boolean)


@filter_named("first")
def _first(context: RenderContext, guard: Guard, value: Any) -> Any:
    guard.count(value)
    for part in value:
        return part
    return context.environment.undefined("No first item, sequence was empty.")


@filter_named("last")
def _last(context: RenderContext, guard: Guard, value: Any) -> Any:
    guard.count(value)
    for part in reversed(value):
        return part
    return context.environment.undefined("No last item, sequence was empty.")


@filter_named("list")
def _list(context: RenderContext, guard: Guard, value: Any) -> Any:
    return guard.items(value)


@filter_named("items")
def _items(context: RenderContext, guard: Guard, value: Any) -> Any:
    if isinstance(value, Undefined):
        return once(())
    if not isinstance(value, dict):
        raise TypeError("Can only get item pairs from a mapping.")
    return once(guard.items(value.items()))


@filter_named("reverse")
def _reverse(context: RenderContext, guard: Guard, value: Any) -> Any:
    if isinstance(value, str):
        return guard.cut(value, slice(None, None, -1))
    return reversed(guard.items(value))


@filter_named("batch")
def _batch(context: RenderContext, guard: Guard, value: Any, linecount: int, fill_with: Any = None) -> Any:
    parts = guard.items(value, 4)
    if fill_with is not None:
        guard.meter.allocate(8 * max(0, int(linecount)))
    guard.meter.allocate(64 * (len(parts) // max(1, int(linecount)) + 1))
    return once(_original["batch"](parts, linecount, fill_with))


@filter_named("slice")
def _slice(context: RenderContext, guard: Guard, value: Any, slices: int, fill_with: Any = None) -> Any:
    guard.tick(4 * max(0, int(slices)))
    guard.meter.allocate(80 * max(0, int(slices)))
    return once(jinja_filters.sync_do_slice(guard.items(value, 2), slices, fill_with))


@filter_named("dictsort")
def _dictsort(
    context: RenderContext,
    guard: Guard,
    value: Any,
    case_sensitive: bool = False,
    by: str = "key",
    reverse: bool = False,
) -> Any:
    if not isinstance(value, dict):
        raise TypeError("dictsort takes a mapping")
    _pay_sort(guard, value.values() if by == "value" else value.keys())
    guard.items(value.items())
    return _original["dictsort"](value, case_sensitive, by, reverse)


@filter_named("sort")
def _sort(
    context: RenderContext,
    guard: Guard,
    value: Any,
    reverse: bool = False,
    case_sensitive: bool = False,
    attribute: Any = None,
) -> Any:
    parts = guard.items(value)
    _pay_lookup(guard, parts, attribute)
    _pay_sort(guard, parts)
    return _original["sort"](context.environment, parts, reverse, case_sensitive, attribute)


@filter_named("groupby")
def _groupby(
    context: RenderContext, guard: Guard, value: Any, attribute: Any, default: Any = None, case_sensitive: bool = False
) -> Any:
    parts = guard.items(value, 8)
    _pay_lookup(guard, parts, attribute)
    _pay_sort(guard, parts)
    guard.meter.allocate(200 * len(parts))
    return jinja_filters.sync_do_groupby(context.environment, parts, attribute, default, case_sensitive)


@filter_named("min")
def _min(context: RenderContext, guard: Guard, value: Any, case_sensitive: bool = False, attribute: Any = None) -> Any:
    return _extreme(context, guard, "min", value, case_sensitive, attribute)


@filter_named("max")
def _max(context: RenderContext, guard: Guard, value: Any, case_sensitive: bool = False, attribute: Any = None) -> Any:
    return _extreme(context, guard, "max", value, case_sensitive, attribute)


def _extreme(context: RenderContext, guard: Guard, name: str, value: Any, case_sensitive: bool, attribute: Any) -> Any:
    parts = guard.items(value)
    _pay_lookup(guard, parts, attribute)
    guard.weigh(parts)
    return _original[name](context.environment, parts, case_sensitive, attribute)


@filter_named("unique")
def _unique(
    context: RenderContext, guard: Guard, value: Any, case_sensitive: bool = False, attribute: Any = None
) -> Any:
    parts = guard.items(value, 2)
    for key in mapped(context, guard, parts, attribute):
        guard.key(key)
        # Hashes of integers are their value modulo 2^61 - 1, so larger ones can all be made to collide.
        if isinstance(key, (int, float)) and not abs(key) < 1 << 53:
            raise TemplateError("the chat template looks for unique numbers above 2^53, which is not supported")
    guard.meter.allocate(100 * len(parts))
    return once(jinja_filters.sync_do_unique(context.environment, parts, case_sensitive, attribute))


@filter_named("attr")
def _attr(context: RenderContext, guard: Guard, value: Any, name: Any) -> Any:
    name = str(guard.text(name))
    if type(value) is dict and name in value and name not in methods.METHODS[dict]:  # an item is no attribute
        return context.environment.undefined(obj=value, name=name)
    return methods.attribute(value, name, context.environment.undefined)


@filter_named("map")
def _map(context: RenderContext, guard: Guard, value: Any, *args: Any, **kwargs: Any) -> Any:
    parts = guard.items(value, 4) if value else []  # none gives nothing, as in jinja2
    _pay_lookup(guard, parts, kwargs.get("attribute"))
    return once(jinja_filters.sync_do_map(context, parts, *args, **kwargs))


def _choice(name: str, by_attribute: bool) -> None:
    original = getattr(jinja_filters, f"sync_do_{name}")

    @filter_named(name)
    def call(context: RenderContext, guard: Guard, value: Any, *args: Any, **kwargs: Any) -> Any:
        parts = guard.items(value, 4) if value else []
        _pay_lookup(guard, parts, args[0] if by_attribute and args else None)
        return once(original(context, parts, *args, **kwargs))

    del call


_choice("select", by_attribute=False)
_choice("reject", by_attribute=False)
_choice("selectattr", by_attribute=True)
_choice("rejectattr", by_attribute=True)


def _pay_lookup(guard: Guard, parts: list[Any], attribute: Any) -> None:
    """Pay for looking up a dotted attribute ('a.b.c') in every part."""
    if isinstance(attribute, str):
        guard.tick(len(parts) * (2 + attribute.count(".") + attribute.count(",")) + len(attribute))


def mapped(context: RenderContext, guard: Guard, parts: list[Any], attribute: Any) -> list[Any]:
    """The dotted `attribute` of every part; the parts themselves if it is None."""
    if attribute is None:
        return parts
    _pay_lookup(guard, parts, attribute)
    return [*map(jinja_filters.make_attrgetter(context.environment, attribute), parts)]


def _pay_sort(guard: Guard, parts: Iterable[Any]) -> None:
    """Pay for n log n comparisons, each as dear as the parts are large on average."""
    parts = list(parts)
    before = guard.meter.fuel
    guard.weigh(parts)
    guard.tick((before - guard.meter.fuel) * int(math.log2(len(parts) + 1)) // 4)


@filter_named("sum")
def _sum(context: RenderContext, guard: Guard, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    if isinstance(start, str):
        raise TypeError("sum does not join strings; use join")
    total = start
    for part in mapped(context, guard, guard.items(value), attribute):
        total = guard.binary("+", total, part)
    return total
