"""The register of filters and tests of chat templates: jinja2's own functions, each behind a check of its cost.

`text_filters.py`, `list_filters.py` and `predicates.py` fill it. Left out on purpose, because no chat template needs
them and each is a risk or a surprise: urlize, striptags, xmlattr, urlencode, wordwrap, pprint, filesizeformat, random,
forceescape. `tojson` is Hugging Face's (plain JSON, nothing escaped for HTML) and `from_json` is llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from jinja2.utils import pass_context

if TYPE_CHECKING:
    from .sandbox import RenderContext

Function = Callable[..., Any]
FILTERS: Final[dict[str, Function]] = {}
TESTS: Final[dict[str, Function]] = {}


def filter_named(*names: str) -> Callable[[Function], Function]:
    """Register `function(context, guard, value, ...)` under `names`; a call costs four units."""

    def register(function: Function) -> Function:
        @pass_context
        def call(context: RenderContext, value: Any, *args: Any, **kwargs: Any) -> Any:
            guard = context.guard
            guard.tick(4)
            return function(context, guard, value, *args, **kwargs)

        for name in names:
            FILTERS[name] = call
        return function

    return register


def add_test(name: str, function: Function) -> None:
    """Register `function(guard, value, ...)` as the test `name`; a call costs one unit."""

    @pass_context
    def call(context: RenderContext, value: Any, *args: Any) -> Any:
        context.guard.tick(1)
        return function(context.guard, value, *args)

    TESTS[name] = call
