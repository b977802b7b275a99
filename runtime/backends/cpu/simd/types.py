"""Vectors as Numba values: a type whose data model is an LLVM vector lives in a register like any number."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from .emit import F32, I32, Emitter, Vec, ir


class VectorType(types.Type):
    """`n` lanes of one LLVM element type."""

    def __init__(self, name: str, element: ir.Type, n: int) -> None:
        self.element, self.n = element, n
        super().__init__(name=name)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: VectorType) -> None:
        super().__init__(manager, kind, ir.VectorType(kind.element, kind.n))


f32x16 = VectorType("f32x16", F32, 16)
i32x16 = VectorType("i32x16", I32, 16)

address = types.uint64


def emitted(
    result: Any, *arguments: Any, apart: bool = False, exact: bool = False
) -> Callable[[Callable[..., Vec | None]], Any]:
    """Make a function for kernels out of one that emits: `fn(e, *values)` runs when the kernel is compiled.

    `apart` from its caller it has all registers to itself; such a function returns nothing. `exact`: see Emitter.
    """

    def wrap(function: Callable[..., Vec | None]) -> Any:
        kind = result(*arguments)

        def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            if apart:
                _call_apart(builder, function, values, exact)
                return context.get_dummy_value()
            e = Emitter(builder, exact=exact)
            made = function(e, *(Vec(e, value) for value in values))
            return made.ll if made is not None else context.get_dummy_value()

        made = (kind, generate)
        define: Any = (  # Numba wants as many named parameters as there are arguments
            lambda typing_context, a: made,
            lambda typing_context, a, b: made,
            lambda typing_context, a, b, c: made,
            lambda typing_context, a, b, c, d: made,
            lambda typing_context, a, b, c, d, f: made,
            lambda typing_context, a, b, c, d, f, g: made,
            lambda typing_context, a, b, c, d, f, g, h: made,
            lambda typing_context, a, b, c, d, f, g, h, i: made,
            lambda typing_context, a, b, c, d, f, g, h, i, j: made,
        )[len(arguments) - 1]
        define.__name__ = function.__name__
        define.__doc__ = function.__doc__
        return intrinsic(define)

    return wrap


def _call_apart(builder: ir.IRBuilder, function: Callable[..., None], values: list[ir.Value], exact: bool) -> None:
    """Emit a function of its own, which LLVM is not to merge into its caller, and a call of it."""
    module = builder.module
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
    own = ir.Function(module, kind, module.get_unique_name(function.__name__))
    own.linkage = "internal"
    own.attributes.add("noinline")
    inside = ir.IRBuilder(own.append_basic_block("entry"))
    e = Emitter(inside, exact=exact)
    function(e, *(Vec(e, value) for value in own.args))
    inside.ret_void()
    builder.call(own, values)


_OPERATORS = {
    operator.add: lambda a, b: a + b,
    operator.sub: lambda a, b: a - b,
    operator.mul: lambda a, b: a * b,
    operator.truediv: lambda a, b: a / b,
}


def _define_operator(symbol: Any, emit: Callable[[Vec, Vec], Vec]) -> None:
    @infer_global(symbol)
    class _Typing(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], VectorType):
                if args[0] == args[1]:
                    return signature(args[0], *args)
                if args[0] == f32x16 and args[1] in (types.float32, types.float64):
                    return signature(f32x16, f32x16, types.float32)
            return None

    for right in (f32x16, types.float32):

        @lower_builtin(symbol, f32x16, right)
        def _lower(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            e = Emitter(builder)
            return emit(Vec(e, values[0]), Vec(e, values[1])).ll


for _symbol, _emit in _OPERATORS.items():
    _define_operator(_symbol, _emit)
