"""The tests of templates (`x is string`)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from jinja2 import tests as jinja_tests
from jinja2.runtime import Undefined

from . import methods
from .filters import FILTERS, TESTS, add_test
from .values import Guard


def _is_sequence(guard: Guard, value: Any) -> bool:
    return isinstance(value, (str, list, tuple, dict, range, Undefined))


def _is_iterable(guard: Guard, value: Any) -> bool:
    return isinstance(value, (str, list, tuple, dict, range, Undefined)) or hasattr(value, "__iter__")


def _compared(name: str) -> Callable[..., Any]:
    original: Any = jinja_tests.TESTS[name]
    return lambda guard, value, other: original(guard.weighed(value), guard.weighed(other))


def _plain(name: str) -> Callable[..., Any]:
    original: Any = jinja_tests.TESTS[name]
    return lambda guard, value, *args: original(value, *args)


def _is_case(name: str) -> Callable[..., Any]:
    original: Any = jinja_tests.TESTS[name]
    return lambda guard, value: original(guard.text(value))


for _name, _function in jinja_tests.TESTS.items():
    _compares = getattr(_function, "__module__", "") == operator.eq.__module__  # ==, lt, greaterthan, ...
    add_test(_name, _compared(_name) if _compares else _plain(_name))
# These replace jinja2's, which would visit, hash or convert a value without paying.
add_test("sequence", _is_sequence)
add_test("iterable", _is_iterable)
add_test("in", lambda guard, value, container: guard.contains(value, container))
add_test("filter", lambda guard, value: guard.key(value) in FILTERS)
add_test("test", lambda guard, value: guard.key(value) in TESTS)
add_test("lower", _is_case("lower"))
add_test("upper", _is_case("upper"))
add_test("callable", lambda guard, value: callable(value) or type(value) is methods.Method)
add_test("odd", lambda guard, value: guard.binary("%", value, 2) == 1)
add_test("even", lambda guard, value: guard.binary("%", value, 2) == 0)
add_test("divisibleby", lambda guard, value, number: guard.binary("%", value, number) == 0)
