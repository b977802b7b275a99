"""What an op is: its weights and attributes, its shape rule and its NumPy reference, together.

An op is declared once, next to its meaning:

    def _shape(node: Call) -> Shapes: ...                      # raises OpError when the arguments do not fit together

    @op("rms_norm", _shape, weights={"weight": False}, attrs={"eps": REQUIRED, "heads": 1})
    def rms_norm(x, *, weight=None, eps, heads=1): ...          # plain NumPy, the definition

The builder calls the shape rule to make values, the verifier calls it again after every rewrite, the reference backend
calls the function. A backend's kernel is correct when it agrees with that function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..graph.ir import Rows, Value, Weight

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()  # marks an attribute that has no default


class OpError(Exception):
    """The arguments of one op do not fit together. The builder and the verifier add the name of the node."""


class Shape(NamedTuple):
    """Everything about a value but its identity."""

    rows: Rows
    cols: int
    repeat: int = 1
    dtype: str = "f32"


Shapes = tuple[Shape, ...]


@dataclass(frozen=True)
class Call:
    """The arguments of an op, as its shape rule sees them. `attrs` is complete: defaults are filled in."""

    inputs: tuple[Shape, ...]
    weights: Mapping[str, Weight]
    attrs: Mapping[str, Any]


@dataclass(frozen=True)
class OpSpec:
    """One row of the op set. `weights` maps a role to whether it is required, `attrs` a name to its default."""

    name: str
    n_inputs: int
    shape: Callable[[Call], Shapes]
    reference: Callable[..., Any]
    weights: Mapping[str, bool]
    attrs: Mapping[str, Any]
    needs: tuple[str, ...]  # of "step", "kv": what the reference wants as keywords besides

    def complete(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """Attributes with defaults filled in; OpError for unknown and missing ones."""
        unknown = sorted(set(attrs) - set(self.attrs))
        if unknown:
            raise OpError(f"has no attribute {unknown[0]!r}, only {', '.join(self.attrs) or 'none'}")
        full = {**self.attrs, **attrs}
        missing = [name for name, value in full.items() if value is REQUIRED]
        if missing:
            raise OpError(f"attribute {missing[0]!r} is missing")
        return full

    def infer(self, inputs: Sequence[Value | Shape], weights: Mapping[str, Weight], attrs: Mapping[str, Any]) -> Shapes:
        """Shapes of the outputs; OpError says what does not fit."""
        if len(inputs) != self.n_inputs:
            raise OpError(f"takes {self.n_inputs} inputs, not {len(inputs)}")
        unknown = sorted(set(weights) - set(self.weights))
        if unknown:
            raise OpError(f"takes no weight {unknown[0]!r}, only {', '.join(self.weights) or 'none'}")
        for role, required in self.weights.items():
            if required and role not in weights:
                raise OpError(f"{role} is missing")
        shapes = tuple(Shape(v.rows, v.cols, v.repeat, v.dtype) for v in inputs)
        return self.shape(Call(shapes, weights, self.complete(attrs)))


_REGISTRY: dict[str, OpSpec] = {}
OPS: Mapping[str, OpSpec] = MappingProxyType(_REGISTRY)

Function = TypeVar("Function", bound=Callable[..., Any])


def op(
    name: str,
    shape: Callable[[Call], Shapes],
    *,
    inputs: int = 1,
    weights: Mapping[str, bool] | None = None,
    attrs: Mapping[str, Any] | None = None,
    needs: tuple[str, ...] = (),
) -> Callable[[Function], Function]:
    """Declare an op; the decorated function is its reference."""

    def declare(function: Function) -> Function:
        assert name not in _REGISTRY, f"the op {name} is declared twice"
        frozen = (MappingProxyType(dict(weights or {})), MappingProxyType(dict(attrs or {})))
        _REGISTRY[name] = OpSpec(name, inputs, shape, function, *frozen, needs)
        return function

    return declare


def same_shape(call: Call) -> Shapes:
    """The rule of ops that work element by element: all inputs alike, the output like them."""
    require_f32(call)
    first = call.inputs[0]
    for other in call.inputs[1:]:
        if other != first:
            raise OpError(f"inputs differ: {describe(first)} and {describe(other)}")
    return (first,)


def require_f32(call: Call, *which: int) -> None:
    """Check that inputs (all, or the given ones) are float32."""
    for i in which or range(len(call.inputs)):
        if call.inputs[i].dtype != "f32":
            raise OpError(f"input {i} is {call.inputs[i].dtype}, must be f32")


def require_vector(call: Call, role: str, cols: int, against: str = "input last dim") -> None:
    """Check that the weight `role`, if present, is a vector of `cols` elements."""
    weight = call.weights.get(role)
    if weight is None:
        return
    if len(weight.shape) != 1:
        raise OpError(f"{role} has {len(weight.shape)} dimensions, must be a vector")
    if weight.shape[0] != cols:
        raise OpError(f"{role} has {weight.shape[0]} elements, {against} is {cols}")


def require_count(call: Call, *names: str) -> None:
    """Check that attributes are whole numbers of at least one."""
    for name in names:
        value = call.attrs[name]
        if type(value) is not int or value < 1:
            raise OpError(f"{name} is {value!r}, must be a whole number of at least 1")


def require_finite(call: Call, *names: str, positive: bool = False) -> None:
    """Check that attributes are finite numbers."""
    for name in names:
        value = call.attrs[name]
        if type(value) not in (int, float) or not np.isfinite(value) or (positive and value <= 0):
            raise OpError(f"{name} is {value!r}, must be a finite number{' above 0' if positive else ''}")


def require_choice(call: Call, name: str, choices: Sequence[str]) -> None:
    """Check that an attribute is one of a few names."""
    if call.attrs[name] not in choices:
        raise OpError(f"{name} is {call.attrs[name]!r}, must be one of {', '.join(choices)}")


def describe(shape: Shape) -> str:
    repeat = f"*{shape.repeat}" if shape.repeat != 1 else ""
    return f"{shape.dtype}[{shape.rows.value}{repeat}, {shape.cols}]"
