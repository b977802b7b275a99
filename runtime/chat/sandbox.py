"""The environment that chat templates run in: jinja2's immutable sandbox, closed further and metered.

jinja2's sandbox asks of each attribute whether it looks dangerous. This one knows the few that are allowed
(`methods.py`), the callables (`functions.py`, `_call`), the filters and tests (`filters.py`) and the syntax
(`_ALLOWED_NODES`), and refuses the rest. Everything that can take long or grow is paid for (`limits.py`, `values.py`,
`codegen.py`).
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import jinja2
from jinja2 import Template, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Joiner, pass_context

from ...formats.errors import TemplateError
from . import list_filters, predicates, text_filters
from .codegen import MeteringCodeGenerator
from .filters import FILTERS, TESTS
from .formatting import printable
from .functions import FUNCTIONS, GLOBALS
from .limits import DEFAULT_LIMITS, Limits, Meter
from .messages import MAX_INT_BITS
from .methods import Method, attribute, item
from .values import Guard

_REGISTERED: Final = (list_filters, text_filters, predicates)  # importing them fills FILTERS and TESTS
FILE_NAME: Final = "<chat template>"
_MAX_SYNTAX_DEPTH = 90  # public templates nest 28 deep; CPython's own parser gives up at about 200
_MAX_SYNTAX_NODES = 4_500  # the largest public template has 1,300; compiling takes 15-40 us a node
_MAX_TOKENS = 9_000  # the largest public template has 2,500 (tests/chat/test_attacks.py)
# fmt: off
_ALLOWED_NODES: Final = frozenset((
    "Add", "And", "Assign", "AssignBlock", "Break", "Call", "CallBlock", "Compare", "Concat", "CondExpr", "Const",
    "Continue", "Dict", "Div", "ExprStmt", "Filter", "FilterBlock", "FloorDiv", "For", "Getattr", "Getitem", "If",
    "Keyword", "List", "Macro", "Mod", "Mul", "NSRef", "Name", "Neg", "Not", "Operand", "Or", "Output", "Pair", "Pos",
    "Pow", "Scope", "Slice", "Sub", "Template", "TemplateData", "Test", "Tuple", "With",
))
# fmt: on
_FORBIDDEN: Final = {
    "Include": "include",
    "Import": "import",
    "FromImport": "from ... import",
    "Extends": "extends",
    "Block": "block",
    "ScopedEvalContextModifier": "autoescape",
}


class RenderContext(Context):
    """The variables of one render, with its guard and its clock."""

    guard: Guard
    now: datetime | None


class _Generation(Extension):
    """`{% generation %}`: marks the assistant's text for training in Hugging Face's templates. Here: its body."""

    tags = {"generation"}  # noqa: RUF012  (the parent class declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Measure(Extension):
    """Counts tokens on their way to the parser, which therefore never works on more of them than are allowed."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for count, token in enumerate(stream):
            if count > _MAX_TOKENS:
                raise TemplateError(f"chat template line {token.lineno}: the template is too large")
            yield token


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Compiles chat templates. One instance serves all threads: it holds no state of a render."""

    code_generator_class = MeteringCodeGenerator
    context_class = RenderContext
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constant folding would run filters while compiling, before any meter
            finalize=_finalize,
            extensions=[loopcontrols, _Generation, _Measure],
            cache_size=0,
        )
        self.filters = dict(FILTERS)
        self.tests = dict(TESTS)
        self.globals = dict(GLOBALS)

    def getattr(self, obj: Any, attribute_name: str) -> Any:
        return attribute(obj, attribute_name, self.undefined)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return item(obj, argument, self.undefined)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        assert isinstance(context, RenderContext)
        return context.guard.binary(operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        assert isinstance(__context, RenderContext)
        kwargs.pop("_loop_vars", None)
        kwargs.pop("_block_vars", None)
        return _call(__context, __obj, args, kwargs)


def _call(context: RenderContext, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call what may be called: our functions, allowed methods, macros of the template."""
    guard = context.guard
    guard.tick(4 + len(args) + len(kwargs))
    kind = type(function)
    if kind is Method:
        return function.call(guard, function.owner, *args, **kwargs)
    if kind is types.FunctionType and function in FUNCTIONS:
        return function(context, *args, **kwargs)
    if kind is Macro:
        guard.tick(10)
        guard.meter.enter()
        try:
            return function(*args, **kwargs)
        finally:
            guard.meter.depth -= 1
    if kind is Joiner:
        return function()
    if isinstance(function, Undefined):
        return function()  # raises the error that names the variable
    raise TemplateError(f"the chat template calls a {kind.__name__}, which is not allowed")


@pass_context
def _finalize(context: RenderContext, value: Any) -> str:
    """The text of `{{ value }}`. Compiled code calls it for every expression it writes."""
    return context.guard.text(value)


# -- compiling


def compile_template(source: str, limits: Limits = DEFAULT_LIMITS) -> Template:
    """Compile; raises TemplateError with the line for wrong or forbidden syntax."""
    if len(source) > limits.source_chars:
        raise TemplateError(
            f"the chat template has {len(source):,} characters (allowed: {limits.source_chars:,}); it was not compiled"
        )
    check_metering()
    return _compile(source)


def _compile(source: str) -> Template:
    environment = _environment()
    try:
        tree = environment.parse(source)
        _check_syntax(tree)
        code = environment.compile(tree, filename=FILE_NAME)
        return environment.template_class.from_code(environment, code, environment.globals)
    except TemplateError:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"chat template line {error.lineno}: {printable(str(error.message))}") from error
    except RecursionError:
        raise TemplateError("the chat template is nested too deeply to compile") from None
    except (SyntaxError, ValueError, TypeError, OverflowError, MemoryError, jinja2.TemplateError) as error:
        raise TemplateError(f"the chat template cannot be compiled: {printable(str(error))}") from error


def _check_syntax(tree: nodes.Template) -> None:
    """Only known syntax, not too deep for CPython's compiler and not too much of it. Iterative: the tree is hostile."""
    stack: list[tuple[nodes.Node, int]] = [(tree, 0)]
    count = 0
    while stack:
        node, depth = stack.pop()
        count += 1
        if depth > _MAX_SYNTAX_DEPTH or count > _MAX_SYNTAX_NODES:
            raise TemplateError(f"chat template line {node.lineno}: the template is too large or too deeply nested")
        problem = _syntax_problem(node)
        if problem is not None:
            raise TemplateError(f"chat template line {node.lineno}: {problem}")
        stack.extend((child, depth + 1) for child in node.iter_child_nodes())


def _syntax_problem(node: nodes.Node) -> str | None:
    kind = type(node).__name__
    if kind not in _ALLOWED_NODES:
        return f"{{% {_FORBIDDEN.get(kind, kind)} %}} is not allowed in chat templates"
    if isinstance(node, nodes.Name) and node.name == "self":
        return "'self' is not allowed in chat templates"
    if isinstance(node, nodes.For) and node.recursive:
        return "recursive loops are not supported; use a macro"
    if isinstance(node, nodes.Const) and isinstance(node.value, int) and node.value.bit_length() > MAX_INT_BITS:
        return "the number is too large"
    return None


@functools.lru_cache(maxsize=1)
def _environment() -> ChatEnvironment:
    return ChatEnvironment()


_PROBE: Final = (
    "{% macro m(x) %}{{ x ~ '!' }}{% endmacro %}{% set ns = namespace(a={'k': 1}) %}"
    "{% for i in range(3) %}{% if i == 1 and 'a' in 'abc' %}{% set ns.a = 'abc'[1:] %}"
    "{{ m(i + 1) }}{% endif %}{% endfor %}"
)
_PAYMENTS: Final = (
    "tick(",
    "assign(",
    "iterate(",
    " == weighed(",
    "(weighed(",
    "contains(",
    "cut(",
    "key(",
    "join_texts(",
    "concat(",
)


@functools.lru_cache(maxsize=1)
def check_metering() -> None:
    """Make sure that this version of jinja2 compiles the meter into templates; TemplateError if it does not.

    Looks for every kind of payment in the code of a small template, and renders it.
    """
    try:
        missing = _missing_payments()
    except Exception as error:  # an interface of jinja2 that is gone can fail in any way
        missing = [f"{type(error).__name__}: {error}"]
    if missing:
        raise TemplateError(
            f"jinja2 {jinja2.__version__} compiles templates in a way that Halfbyte cannot limit (missing: "
            f"{', '.join(missing)}); install jinja2 3.1.6"
        )


def _missing_payments() -> list[str]:
    environment = _environment()
    code = environment.compile(environment.parse(_PROBE), raw=True)
    missing = [call for call in _PAYMENTS if call not in code]
    if missing:
        return missing
    meter = Meter(DEFAULT_LIMITS)
    text = "".join(run(_compile(_PROBE), {}, meter, None))
    paid = meter.fuel < DEFAULT_LIMITS.fuel - 60 and meter.memory < DEFAULT_LIMITS.memory_bytes
    return [] if text == "2!" and paid else ["payments at run time"]


# -- running


def run(template: Template, variables: dict[str, Any], meter: Meter, now: datetime | None) -> Iterator[str]:
    """The pieces of the output, each paid for; raises what the template raises."""
    context = template.new_context(variables)
    assert isinstance(context, RenderContext)
    context.guard, context.now = Guard(meter), now
    for piece in template.root_render_func(context):
        meter.emit(len(piece))
        yield piece


def line_of(template: Template, error: BaseException) -> int | None:
    """The template line in which `error` was raised, if it was raised in template code."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILE_NAME:
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return line
