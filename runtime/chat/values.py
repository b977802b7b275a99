"""What a template may do with values, each operation paid for before it runs.

`weigh` is the centre. Templates build shared structures cheaply: `a = [a, a]` forty times is forty small lists, yet its
text, a comparison or a hash of it visits 2^40 leaves. So whatever visits a whole value is preceded by a walk over the
same tree in Python, which pays per node and therefore stops.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from jinja2.runtime import Undefined
from jinja2.utils import Namespace

from ...formats.errors import TemplateError
from .formatting import check_printf
from .limits import Meter, text_bytes
from .messages import MAX_INT_BITS

ITERATORS: Final[tuple[type, ...]] = (type(iter([])), type(reversed([])), type(iter(())))  # what our filters return
DICT_VIEWS: Final[tuple[type, ...]] = (type({}.keys()), type({}.values()), type({}.items()))
_SCALARS: Final = frozenset({int, float, bool, type(None)})
_TEXT_OF_SCALAR = 1300  # characters of the longest number (MAX_INT_BITS)
_ESCAPE = 5  # '&#34;': how much longer HTML escaping makes a character
MAX_RANGE = 100_000  # as in jinja2's own sandbox


class Guard:
    """The operations of one render; `meter` pays for them."""

    __slots__ = ("meter", "tick")

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.tick = meter.tick

    # -- whole values

    def weigh(self, value: Any) -> int:
        """Walk all of `value`; returns a bound on the characters of its text or JSON without indentation.

        Raises TemplateError for objects that are not data (functions, macros, namespaces: their text would hold memory
        addresses).
        """
        tick, stack, chars = self.tick, [value], 0
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                tick(1 + (len(item) >> 5))
                chars += 4 + 12 * len(item)  # the longest escape of a character is \ud83d\ude00
            elif type(item) in _SCALARS or isinstance(item, Undefined):
                tick(1)
                chars += 24 if type(item) is not int or -(1 << 64) < item < 1 << 64 else _TEXT_OF_SCALAR
            elif isinstance(item, (list, tuple)):
                tick(1 + len(item))
                chars += 2 + 4 * len(item)
                stack.extend(item)
            elif type(item) is dict:
                tick(1 + 2 * len(item))
                chars += 2 + 6 * len(item)
                stack.extend(item.keys())
                stack.extend(item.values())
            elif type(item) in DICT_VIEWS:
                tick(1 + 2 * len(item))
                chars += 20 + 8 * len(item)
                stack.extend(item)
            elif type(item) is range:
                tick(1)
                chars += 4000
            else:
                raise TemplateError(f"the chat template uses a {type(item).__name__} where only data can be used")
        return chars

    def weighed(self, value: Any) -> Any:
        """`value`, after paying for a visit to all of it."""
        if type(value) not in _SCALARS:
            if type(value) is str:
                self.meter.scan(len(value))
            else:
                self.weigh(value)
        return value

    def text(self, value: Any) -> str:
        """`str(value)`; a Markup stays one."""
        if isinstance(value, str):
            return value
        if type(value) in _SCALARS or isinstance(value, Undefined):
            self.tick(1)
            return str(value)
        self.meter.require(4 * self.weigh(value))
        return self.meter.text(str(value))

    def key(self, value: Any) -> Any:
        """`value`, if it may be a key: hashing a shared tuple would be exponential."""
        if isinstance(value, str) or type(value) in _SCALARS:
            return value
        raise TemplateError(f"the chat template uses a {type(value).__name__} as a dictionary key")

    # -- what compiled code calls

    def concat(self, parts: Iterable[str]) -> str:
        """Join output buffers, already texts: macros and set blocks end in this."""
        parts = list(parts)
        self.meter.tick(len(parts) >> 3)
        total = sum(map(len, parts))
        self.meter.copy(total)
        self.meter.require(total)
        return self.meter.text("".join(parts))

    def join_texts(self, parts: Iterable[Any]) -> str:
        """`a ~ b ~ c`."""
        return self.concat([str(self.text(part)) for part in parts])

    def assign(self, namespace: Any, name: str, value: Any) -> None:
        """`{% set namespace.name = value %}`. Text that dies by it is given back to the meter.

        Without this a template that appends to its text at every message would pay for the conversation squared.
        """
        if not isinstance(namespace, Namespace):
            raise TypeError("cannot assign attribute on non-namespace object")
        old = attributes(namespace).get(name)
        namespace[name] = value
        if type(old) is str and getrefcount(old) < _REFERENCES_OF_LIVING:
            self.meter.memory += text_bytes(old)

    def iterate(self, value: Any, cost: int) -> Any:
        """The iterable of a for loop; `cost` is paid per item in advance, for the loop's filter."""
        self.tick(1 + self.count(value) * cost)
        return value

    def count(self, value: Any) -> int:
        """How many items iterating over `value` gives; TypeError if it cannot be iterated."""
        if isinstance(value, (str, list, tuple, dict, range)):
            return len(value)
        if isinstance(value, (*ITERATORS, *DICT_VIEWS)):
            return operator.length_hint(value)
        if isinstance(value, Undefined):
            return len(value)  # 0; a strict undefined raises
        raise TypeError(f"{type(value).__name__!r} object is not iterable")

    def items(self, value: Any, cost: int = 1) -> list[Any]:
        """The items of an iterable as a new list, at `cost` fuel each."""
        size = self.count(value)
        self.tick(1 + size * cost)
        wide = isinstance(value, str) and not value.isascii()
        self.meter.allocate(56 + size * (84 if wide or isinstance(value, DICT_VIEWS) else 8))
        return list(value)

    def cut(self, value: Any, index: slice) -> Any:
        """`value[start:stop:step]`."""
        if isinstance(value, Undefined):
            return value[index]  # raises the error that names the variable
        if isinstance(value, str):
            size = len(range(*index.indices(len(value))))
            (self.meter.copy if index.step in (None, 1) else self.meter.scan)(size)
            self.meter.require(4 * size)
            return self.meter.text(value[index])
        if isinstance(value, (list, tuple)):
            size = len(range(*index.indices(len(value))))
            self.tick(1 + (size >> 3))
            self.meter.allocate(56 + 8 * size)
            return value[index]
        if type(value) is range:
            return value[index]
        raise TypeError(f"{type(value).__name__!r} object cannot be sliced")

    def contains(self, item: Any, container: Any) -> bool:
        """`item in container`."""
        if type(container) is dict or type(container) in DICT_VIEWS[:1]:
            return self.key(item) in container
        if isinstance(container, str):
            self.meter.scan(len(container))
            return item in container
        if isinstance(container, ITERATORS):
            container = self.items(container)
        if isinstance(item, (list, tuple, dict)):
            self.weigh(item)
            self.weigh(container)
        else:
            length = len(item) if isinstance(item, str) else 0
            self.tick(1 + self.count(container) * (1 + (length >> 10)))
        return item in container

    def binary(self, op: str, left: Any, right: Any) -> Any:
        """`left op right` for one of + - * / // ** %."""
        self.tick(1)
        prepare = _PREPARE.get(op)
        if prepare is not None and not (type(left) in _SMALL and type(right) in _SMALL and op in "+-"):
            prepare(self, left, right)
        return _OPERATORS[op](left, right)


def _prepare_add(guard: Guard, left: Any, right: Any) -> None:
    if isinstance(left, str) and isinstance(right, str):
        factor = 1 if type(left) is type(right) else _ESCAPE  # Markup + str escapes the str
        size = factor * (len(left) + len(right))
        (guard.meter.copy if factor == 1 else guard.meter.scan)(size)
        guard.meter.allocate(56 + size * (1 if left.isascii() and right.isascii() else 4))
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        size = len(left) + len(right)
        guard.tick(1 + (size >> 3))
        guard.meter.allocate(56 + 8 * size)
    else:
        _data_only(left, right)


def _prepare_multiply(guard: Guard, left: Any, right: Any) -> None:
    if isinstance(right, (str, list, tuple)):
        left, right = right, left
    if isinstance(left, (str, list, tuple)):
        times = max(0, operator.index(right))
        size = times * len(left) * (8 if not isinstance(left, str) else 1 if left.isascii() else 4)
        guard.meter.allocate(56 + size)
        guard.meter.copy(4 * size)  # a long list is copied item by item
    elif isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    else:
        _data_only(left, right)


def _prepare_power(guard: Guard, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and right > 0:
        _check_bits(max(1, left.bit_length()) * right)
    else:
        _data_only(left, right)


def _prepare_other(guard: Guard, left: Any, right: Any) -> None:
    _data_only(left, right)
    if isinstance(left, DICT_VIEWS):
        raise TypeError("dictionary views cannot be subtracted in a template")


def _prepare_modulo(guard: Guard, left: Any, right: Any) -> None:
    if isinstance(left, str):
        check_printf(guard, left, right)
    else:
        _data_only(left, right)


def _data_only(*values: Any) -> None:
    for value in values:
        if not isinstance(value, (str, int, float, type(None), list, tuple, dict, range, Undefined, *DICT_VIEWS)):
            raise TypeError(f"a {type(value).__name__} cannot be used with an operator")


def checked_int(value: Any) -> Any:
    """`value`; TemplateError if it is an integer with more digits than a template may compute with."""
    if isinstance(value, int):
        _check_bits(value.bit_length())
    return value


def _check_bits(bits: int) -> None:
    if bits > MAX_INT_BITS:
        raise TemplateError(f"the chat template computes an integer of more than {MAX_INT_BITS} bits; it was stopped")


_SMALL: Final = frozenset({int, float, bool})
_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "**": operator.pow,
    "%": operator.mod,
}
_PREPARE: Final[dict[str, Callable[[Guard, Any, Any], None]]] = {
    "+": _prepare_add,
    "-": _prepare_other,
    "*": _prepare_multiply,
    "/": _prepare_other,
    "//": _prepare_other,
    "**": _prepare_power,
    "%": _prepare_modulo,
}


def attributes(namespace: Namespace) -> dict[str, Any]:
    """The dictionary behind a namespace."""
    return namespace._Namespace__attrs  # type: ignore[no-any-return]


def _count_references() -> int:
    """What getrefcount says, in the situation of `Guard.assign`, about a text that something else still holds.

    Measured, because Python 3.14 counts one reference less than 3.10 for a local variable. Interpreters without
    reference counts (PyPy) get 0: nothing is ever given back there.
    """
    namespace = Namespace(a="".join(["he", "ld"]))
    held = [attributes(namespace)["a"]]
    old = attributes(namespace).get("a")
    namespace["a"] = None
    return getrefcount(old) if held else 0


getrefcount: Final[Callable[[Any], int]] = getattr(sys, "getrefcount", lambda value: 0)
_REFERENCES_OF_LIVING: Final = _count_references()


def once(items: Iterable[Any]) -> Iterator[Any]:
    """An iterator over items that exist already: true, without a length and read once, like jinja2's generators."""
    return iter(list(items))
