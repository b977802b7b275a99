"""The global functions of chat templates. Each gets the render's context before the template's arguments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from jinja2.utils import Cycler, Joiner, Namespace

from ...formats.errors import TemplateError
from .formatting import printable, strftime
from .values import MAX_RANGE

if TYPE_CHECKING:
    from .sandbox import RenderContext


def _range(context: RenderContext, *args: Any) -> range:
    numbers = range(*args)
    if len(numbers) > MAX_RANGE or any(abs(bound) > 1 << 60 for bound in (numbers.start, numbers.stop)):
        raise TemplateError(f"the chat template asks for a range of more than {MAX_RANGE:,} numbers")
    return numbers


def _dict(context: RenderContext, *args: Any, **kwargs: Any) -> dict[Any, Any]:
    if len(args) > 1 or (args and type(args[0]) is not dict):
        raise TypeError("dict takes one dictionary and keyword arguments")
    size = len(kwargs) + (len(args[0]) if args else 0)
    context.guard.tick(size)
    context.guard.meter.allocate(64 + 100 * size)
    return dict(*args, **kwargs)


def _namespace(context: RenderContext, *args: Any, **kwargs: Any) -> Namespace:
    context.guard.meter.allocate(300)
    return Namespace(_dict(context, *args, **kwargs))


def _cycler(context: RenderContext, *items: Any) -> Cycler:
    context.guard.meter.allocate(300)
    return Cycler(*items)


def _joiner(context: RenderContext, sep: str = ", ") -> Joiner:
    context.guard.meter.allocate(300)
    return Joiner(context.guard.text(sep))


def _raise_exception(context: RenderContext, message: Any = "") -> None:
    raise TemplateError(f"the chat template refuses this conversation: {printable(context.guard.text(message))}")


def _strftime_now(context: RenderContext, pattern: Any = "%Y-%m-%d") -> str:
    return context.guard.meter.text(strftime(context.now or datetime.now(), pattern))


GLOBALS: Final[dict[str, Callable[..., Any]]] = {
    "range": _range,
    "dict": _dict,
    "namespace": _namespace,
    "cycler": _cycler,
    "joiner": _joiner,
    "raise_exception": _raise_exception,
    "strftime_now": _strftime_now,
}
FUNCTIONS: Final = frozenset(GLOBALS.values())
