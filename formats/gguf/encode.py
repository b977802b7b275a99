"""Encode metadata: choose the stored type of a Python value, and turn keys and values into bytes."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from struct import error as StructError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import WriteError
from .limits import MAX_KEY_BYTES
from .types import ValueType
from .values import SCALARS, STRUCTS

# In the order they are tried. Scalars prefer unsigned, arrays signed, as existing converters write them.
_SCALAR_INTS = (ValueType.UINT32, ValueType.INT32, ValueType.UINT64, ValueType.INT64)
_ARRAY_INTS = (ValueType.INT32, ValueType.UINT32, ValueType.INT64, ValueType.UINT64)
_BY_DTYPE = {np.dtype(code): type_ for type_, (_, code) in SCALARS.items()}


def encode_name(name: str, max_bytes: int, what: str, byte_order: str) -> bytes:
    """A key or tensor name: u64 length and UTF-8."""
    raw = name.encode("utf-8", "surrogatepass")
    if not 0 < len(raw) <= max_bytes or "\0" in name or raw != name.encode("utf-8", "replace"):
        raise WriteError(f"{what} {name[:80]!r} must be 1 to {max_bytes} bytes of UTF-8 without NUL")
    return Struct(byte_order + "Q").pack(len(raw)) + raw


def encode_entry(key: str, value: object, value_type: ValueType | None, byte_order: str) -> bytes:
    """A whole key-value pair: key, type and value. See GGUFWriter.add for how types are chosen."""
    head = encode_name(key, MAX_KEY_BYTES, "key", byte_order)
    u32, u64 = Struct(byte_order + "I"), Struct(byte_order + "Q")
    if isinstance(value, list | tuple | np.ndarray):
        items: Any = value
        element = value_type
        if element is None or element is ValueType.ARRAY:
            element = _element_type(key, items)
        head += u32.pack(ValueType.ARRAY) + u32.pack(element) + u64.pack(len(items))
        return head + _encode_items(key, items, element, byte_order)
    type_ = _scalar_type(key, value) if value_type is None else value_type
    if type_ is ValueType.ARRAY:
        raise WriteError(f"key {key!r}: an ARRAY needs a list or a one-dimensional array, not {type(value).__name__}")
    return head + u32.pack(type_) + _encode_items(key, [value], type_, byte_order)


def _scalar_type(key: str, value: object) -> ValueType:
    if isinstance(value, str | bytes):
        return ValueType.STRING
    if isinstance(value, bool | np.bool_):
        return ValueType.BOOL
    if isinstance(value, int | np.integer):
        return _int_type(key, int(value), int(value), _SCALAR_INTS)
    if isinstance(value, float | np.floating):
        return ValueType.FLOAT32
    raise WriteError(f"key {key!r}: cannot store a {type(value).__name__}")


def _element_type(key: str, items: Sequence[Any] | NDArray[Any]) -> ValueType:
    if isinstance(items, np.ndarray):
        native = items.dtype.newbyteorder("=")
        if native not in _BY_DTYPE:
            raise WriteError(f"key {key!r}: cannot store an array of {items.dtype}")
        return _BY_DTYPE[native]
    if not items:
        raise WriteError(f"key {key!r}: give value_type for an empty list")
    types = {_scalar_type(key, item) for item in items}
    if types <= set(_SCALAR_INTS):
        return _int_type(key, int(min(items)), int(max(items)), _ARRAY_INTS)
    if len(types) > 1:
        raise WriteError(f"key {key!r}: a list holds one type, not {', '.join(sorted(t.name for t in types))}")
    return types.pop()


def _int_type(key: str, low: int, high: int, candidates: tuple[ValueType, ...]) -> ValueType:
    for type_ in candidates:
        bounds = np.iinfo(SCALARS[type_][1])
        if bounds.min <= low and high <= bounds.max:
            return type_
    raise WriteError(f"key {key!r}: no integer type holds {low} to {high}")


def _encode_items(key: str, items: Sequence[Any] | NDArray[Any], type_: ValueType, byte_order: str) -> bytes:
    if type_ is ValueType.STRING:
        return b"".join(_encode_string(key, item, byte_order) for item in items)
    if type_ is ValueType.ARRAY:
        raise WriteError(f"key {key!r}: arrays of arrays are not allowed")
    if isinstance(items, np.ndarray):
        return _encode_array(key, items, type_, byte_order)
    layout = STRUCTS[byte_order, type_]
    try:
        return b"".join(layout.pack(_checked(key, item, type_)) for item in items)
    except (StructError, OverflowError) as error:
        raise WriteError(f"key {key!r}: a value is out of range for {type_.name}: {error}") from None


def _checked(key: str, item: Any, type_: ValueType) -> bool | int | float:
    """The item as the Python type that `type_` stores. Ints may be stored as floats, nothing else is converted."""
    if type_ is ValueType.BOOL:
        fits = isinstance(item, bool | np.bool_)
        number: bool | int | float = bool(item) if fits else 0
    elif type_ in (ValueType.FLOAT32, ValueType.FLOAT64):
        fits = isinstance(item, float | int | np.floating | np.integer) and not isinstance(item, bool)
        number = float(item) if fits else 0
    else:
        fits = isinstance(item, int | np.integer) and not isinstance(item, bool)
        number = int(item) if fits else 0
    if not fits:
        raise WriteError(f"key {key!r}: cannot store a {type(item).__name__} as {type_.name}")
    return number


def _encode_array(key: str, items: NDArray[Any], type_: ValueType, byte_order: str) -> bytes:
    wanted = np.dtype(SCALARS[type_][1])
    if items.ndim != 1:
        raise WriteError(f"key {key!r}: arrays have one dimension, not {items.ndim}")
    if items.dtype.newbyteorder("=") != wanted:
        return _encode_items(key, items.tolist(), type_, byte_order)
    return items.astype(wanted.newbyteorder(byte_order)).tobytes()  # type: ignore[arg-type]


def _encode_string(key: str, item: object, byte_order: str) -> bytes:
    """str with surrogate escapes, as the reader makes them, or raw bytes."""
    if not isinstance(item, str | bytes):
        raise WriteError(f"key {key!r}: cannot store a {type(item).__name__} as STRING")
    try:
        raw = item.encode("utf-8", "surrogateescape") if isinstance(item, str) else item
    except UnicodeEncodeError as error:
        raise WriteError(f"key {key!r}: {error}") from None
    return STRUCTS[byte_order, ValueType.UINT64].pack(len(raw)) + raw
