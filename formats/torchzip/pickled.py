"""What the pickle of a PyTorch checkpoint says, read without running any of it.

A pickle is a program. This reader knows the few instructions that tensors in dicts, lists and tuples need, and puts
together values of its own: no name in the pickle is ever imported, nothing is called. All else is refused by name.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from .errors import TorchPickleError

# Names of types of numbers as safetensors has them, by PyTorch's names of storages and of dtypes.
STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
UNTYPED = "U8"  # a storage of bytes; the tensor says what they are
MAX_STEPS, MAX_ITEMS = 1_000_000, 1_000_000  # of a pickle that describes some thousand tensors


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors lie in: a part of the archive."""

    key: str
    dtype: str
    n_elements: int


@dataclass(frozen=True)
class TensorView:
    """Where a tensor lies in its storage, unchecked: offset and strides count elements."""

    storage: Storage
    dtype: str
    offset: Any
    shape: Any
    strides: Any


@dataclass(frozen=True)
class _Name:
    """A global that the pickle names. It stays a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Mark:
    """The place on the stack where a container begins."""


def read_pickle(data: bytes, path: str) -> Any:
    """The value that a pickle describes: dict, list, tuple, str, int, float, bool, None, and TensorView.

    Raises TorchPickleError that names what is not allowed, and where.
    """
    machine = _Machine(path)
    try:
        for steps, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            machine.position = position or 0
            if steps > MAX_STEPS:
                machine.refuse("more instructions than any model needs")
            step = _STEPS.get(opcode.name)
            if step is None:
                machine.refuse(f"the instruction {opcode.name} is not one that tensors need")
            step(machine, argument)
    except TorchPickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        # What pickletools cannot read, a stack that runs empty, a key that cannot be one.
        machine.refuse(f"it is damaged: {type(error).__name__} {error}")
    return machine.result()


class _Machine:
    def __init__(self, path: str) -> None:
        self._path, self.position = path, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._result: list[Any] = []

    def refuse(self, problem: str) -> NoReturn:
        raise TorchPickleError(
            problem, path=self._path, field=f"pickle, instruction at {self.position}",
            hint="Only tensors in plain containers are read. Save the weights as safetensors where you trust them",
        )  # fmt: skip

    def above_mark(self) -> list[Any]:
        """Everything above the last mark, which goes as well."""
        i = len(self.stack) - 1
        while i >= 0 and not isinstance(self.stack[i], _Mark):
            i -= 1
        if i < 0:
            self.refuse("it is damaged: no mark on the stack")
        items = self.stack[i + 1 :]
        del self.stack[i:]
        return items

    def remember(self, key: int) -> None:
        if len(self.memo) >= MAX_ITEMS:
            self.refuse("it remembers more than any model needs")
        self.memo[key] = self.stack[-1]

    def name(self, module: str, name: str) -> None:
        self.stack.append(_Name(module, name))

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        known = _CALLS.get(str(function)) if isinstance(function, _Name) else None
        if known is None or not isinstance(arguments, tuple):
            self.refuse(f"it asks to call {function if isinstance(function, _Name) else 'a value'}")
        self.stack.append(known(self, *arguments))

    def build(self) -> None:
        """Attributes for an object: of a dict subclass they are no weights, such as `_metadata` of a state_dict."""
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            self.refuse("it sets the state of an object")

    def storage(self) -> None:
        """A persistent id: ("storage", type, key, device, number of elements)."""
        given = self.stack.pop()
        if not isinstance(given, tuple) or len(given) != 5 or given[0] != "storage":
            self.refuse("a reference that is no storage")
        _, kind, key, _, count = given
        dtype = None
        if isinstance(kind, _Name):
            untyped = str(kind) in ("torch.storage.UntypedStorage", "torch.UntypedStorage")
            dtype = UNTYPED if untyped else STORAGES.get(kind.name) if kind.module == "torch" else None
        if dtype is None or not isinstance(key, str) or type(count) is not int:
            self.refuse(f"a storage of unknown kind: {_said(kind)}")
        self.stack.append(Storage(key, dtype, count))

    def result(self) -> Any:
        if len(self._result) != 1:
            self.refuse("it is damaged: it ends without a value")
        return self._result[0]

    def stop(self) -> None:
        self._result.append(self.stack.pop())


def _tensor(machine: _Machine, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorView:
    """torch._utils._rebuild_tensor_v2; what follows (gradients, hooks) is not of the weights."""
    if not isinstance(storage, Storage):
        machine.refuse("a tensor without a storage")
    return TensorView(storage, storage.dtype, offset, shape, strides)


def _typed_tensor(machine: _Machine, storage: Any, offset: Any, shape: Any, strides: Any, _: Any, hooks: Any,
                  dtype: Any, *__: Any) -> TensorView:  # fmt: skip
    """torch._utils._rebuild_tensor_v3: a storage of bytes, and a dtype."""
    kind = DTYPES.get(dtype.name) if isinstance(dtype, _Name) and dtype.module == "torch" else None
    if kind is None or not isinstance(storage, Storage):
        machine.refuse(f"a tensor of unknown type: {_said(dtype)}")
    return TensorView(storage, kind, offset, shape, strides)


def _parameter(machine: _Machine, tensor: Any, *_: Any) -> TensorView:
    """torch._utils._rebuild_parameter: a tensor that can be trained."""
    if not isinstance(tensor, TensorView):
        machine.refuse("a parameter that is no tensor")
    return tensor


def _ordered(machine: _Machine, items: Any = ()) -> dict[Any, Any]:
    """collections.OrderedDict."""
    if not isinstance(items, list | tuple):
        machine.refuse("a dict of something else than pairs")
    made: dict[Any, Any] = {}
    for key, value in items:
        _put(machine, made, key, value)
    return made


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": _ordered,
}


def _push(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(value)


def _push_argument(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _tuple_of(n: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        items = tuple(machine.stack[-n:])
        if len(items) < n:
            machine.refuse("it is damaged: the stack is empty")
        machine.stack[-n:] = [items]

    return step


def _append(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, list):
        machine.refuse("it appends to something that is no list")
    target += items


def _set(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        machine.refuse("it sets items of something that is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        _put(machine, target, key, value)


def _put(machine: _Machine, target: dict[Any, Any], key: Any, value: Any) -> None:
    """Keys are plain values: the hash of a tuple goes through all that is in it, and some bytes say 2**60 things."""
    if not isinstance(key, str | int | float | None):
        machine.refuse(f"a key that is no plain value: {_said(key)}")
    target[key] = value


def _said(value: object) -> str:
    """For an error. Of a container only its kind, which says as much and has an end."""
    return str(value) if isinstance(value, _Name) else type(value).__name__


def _global(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.name(module, name)


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        machine.refuse("a name that is no text")
    machine.name(module, name)


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: machine.stop(),
    "MARK": lambda machine, _: machine.stack.append(_Mark()),
    "NONE": _push(None),
    "NEWTRUE": _push(True),
    "NEWFALSE": _push(False),
    "EMPTY_TUPLE": _push(()),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        _push_argument,
    ),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.above_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": lambda machine, _: _append(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.above_mark()),
    "SETITEM": lambda machine, _: _set(machine, [machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: _set(machine, machine.above_mark()),
    "BINPUT": lambda machine, key: machine.remember(key),
    "LONG_BINPUT": lambda machine, key: machine.remember(key),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "LONG_BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.storage(),
}
