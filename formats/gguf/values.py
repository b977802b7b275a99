"""Metadata values: found and bounded while parsing, decoded when somebody asks.

Scalars of fixed size are decoded at once. Strings and arrays keep only (offset, count): their bounds are checked while
parsing, so decoding later cannot fail, and a 500,000-entry merge list costs nothing to a program that only wants the
architecture name.

Strings are decoded as UTF-8 with `surrogateescape`: vocabularies hold tokens that are no valid UTF-8, and
`text.encode("utf-8", "surrogateescape")` gives back the exact bytes.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .cursor import Cursor
from .errors import BoolError, NestedArrayError, ValueTypeError
from .types import ValueType

Value: TypeAlias = str | int | float | bool | list[str] | NDArray[Any]

# Fixed-size types: struct code and NumPy code.
SCALARS: dict[ValueType, tuple[str, str]] = {
    ValueType.UINT8: ("B", "u1"),
    ValueType.INT8: ("b", "i1"),
    ValueType.UINT16: ("H", "u2"),
    ValueType.INT16: ("h", "i2"),
    ValueType.UINT32: ("I", "u4"),
    ValueType.INT32: ("i", "i4"),
    ValueType.FLOAT32: ("f", "f4"),
    ValueType.BOOL: ("?", "?"),
    ValueType.UINT64: ("Q", "u8"),
    ValueType.INT64: ("q", "i8"),
    ValueType.FLOAT64: ("d", "f8"),
}
STRUCTS: dict[tuple[str, ValueType], Struct] = {
    (order, type_): Struct(order + code) for order in "<>" for type_, (code, _) in SCALARS.items()
}
_VALUE_TYPES = {int(t): t for t in ValueType}


class Entry:
    """One metadata value: `type`, for arrays `element_type` and `count`; its bytes are [offset, end) of the file."""

    __slots__ = ("count", "element_type", "end", "offset", "type", "value")

    def __init__(self, type_: ValueType, offset: int, element_type: ValueType | None = None, count: int = 1) -> None:
        self.type, self.element_type, self.count, self.offset = type_, element_type, count, offset
        self.end = offset
        self.value: Value | None = None

    @property
    def type_name(self) -> str:
        return self.type.name if self.element_type is None else f"ARRAY of {self.element_type.name}"


def parse_value(c: Cursor, key: str) -> Entry:
    """Read the type and walk over the value at the cursor."""
    type_ = _parse_type(c, key)
    entry = _parse_array(c, key) if type_ is ValueType.ARRAY else _parse_scalar(c, key, type_)
    entry.end = c.pos
    return entry


def decode(entry: Entry, view: memoryview, byte_order: str) -> Value:
    """The Python value of an entry whose bounds were checked by `parse_value`; the result is kept in the entry."""
    if entry.value is None:
        if entry.element_type is None:  # a string: scalars were decoded while parsing
            entry.value = _decode_strings(entry, view, byte_order)[0]
        elif entry.element_type is ValueType.STRING:
            entry.value = _decode_strings(entry, view, byte_order)
        else:
            entry.value = _decode_array(entry, entry.element_type, view, byte_order)
    return entry.value


def _parse_type(c: Cursor, key: str) -> ValueType:
    at = c.pos
    number = c.u32(f"{key}.type")
    if number not in _VALUE_TYPES:
        raise ValueTypeError(
            "unknown value type", path=c.path, offset=at, field=f"{key}.type", got=number, allowed="0 to 12"
        )
    return _VALUE_TYPES[number]


def _parse_scalar(c: Cursor, key: str, type_: ValueType) -> Entry:
    entry = Entry(type_, c.pos)
    if type_ is ValueType.STRING:
        c.skip_string(key)
        return entry
    layout = STRUCTS[c.byte_order, type_]
    c.take(layout.size, key)
    if type_ is ValueType.BOOL:
        _check_bools(c, entry.offset, 1, key)
    entry.value = layout.unpack_from(c.view, entry.offset)[0]
    return entry


def _parse_array(c: Cursor, key: str) -> Entry:
    at = c.pos
    element = _parse_type(c, key)
    if element is ValueType.ARRAY:
        raise NestedArrayError("arrays of arrays are not allowed", path=c.path, offset=at, field=f"{key}.type")
    count = c.u64(f"{key}.count")
    entry = Entry(ValueType.ARRAY, c.pos, element, count)
    if element is ValueType.STRING:
        c.skip_strings(count, key)
    else:
        c.skip_items(count, STRUCTS["<", element].size, key)
        if element is ValueType.BOOL:
            _check_bools(c, entry.offset, count, key)
    return entry


def _check_bools(c: Cursor, offset: int, count: int, key: str) -> None:
    bad = np.frombuffer(c.view, np.uint8, count, offset) > 1 if count else np.zeros(0, np.bool_)
    if bad.any():
        at = offset + int(bad.argmax())
        raise BoolError("not a bool", path=c.path, offset=at, field=key, got=c.view[at], allowed="0 or 1")


def _decode_array(entry: Entry, element: ValueType, view: memoryview, byte_order: str) -> NDArray[Any]:
    """A native-endian, aligned, read-only copy: the bytes in the file sit at any address."""
    code = SCALARS[element][1]
    stored = np.dtype(code).newbyteorder(byte_order)  # type: ignore[arg-type]
    if not entry.count:
        return np.zeros(0, code)
    array = np.frombuffer(view, stored, entry.count, entry.offset).astype(code)
    array.flags.writeable = False
    return array


def _decode_strings(entry: Entry, view: memoryview, byte_order: str) -> list[str]:
    # Slices of bytes decode twice as fast as slices of a memoryview, which pays for the copy.
    data = bytes(view[entry.offset : entry.end])
    unpack = STRUCTS[byte_order, ValueType.UINT64].unpack_from
    strings: list[str] = []
    pos = 0
    for _ in range(entry.count):
        start = pos + 8
        pos = start + unpack(data, pos)[0]
        strings.append(data[start:pos].decode("utf-8", "surrogateescape"))
    return strings
