"""Typed access to metadata: required, defaulted and must-equal are three different calls, and unread keys are an error.

md = file.metadata.scope("llama")
n_head = md.require("attention.head_count", int)
theta = md.optional("rope.freq_base", float, 10_000.0)
md.expect("attention.causal", True)          # nothing else is implemented
md.ignore("vocab_size", "rope.scaling.*")    # known, and harmless to skip
md.done()                                    # UnsupportedError names every "llama." key nobody read
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np

from ..errors import UnsupportedError
from .cursor import PathLike
from .errors import MetadataError
from .header import Header, label
from .source import Source
from .types import ValueType
from .values import Entry, Value, decode

T = TypeVar("T")
D = TypeVar("D")

_FLOATS = {ValueType.FLOAT32, ValueType.FLOAT64}
_NOT_INTS = _FLOATS | {ValueType.BOOL, ValueType.STRING, ValueType.ARRAY}
_PYTHON_TYPES: dict[type, frozenset[ValueType]] = {
    int: frozenset(set(ValueType) - _NOT_INTS),
    float: frozenset(_FLOATS),
    str: frozenset({ValueType.STRING}),
    bool: frozenset({ValueType.BOOL}),
    list: frozenset({ValueType.ARRAY}),
}


class Metadata(Mapping[str, Value]):
    """The key-value pairs of a file, in file order.

    Values are str, int, float, bool, read-only NumPy arrays (numbers) or list[str] (do not change it: it is shared).
    Arrays and strings are decoded on first access, while the file is open.
    """

    def __init__(self, header: Header, source: Source) -> None:
        self._entries, self._source, self._byte_order = header.entries, source, header.byte_order

    @property
    def path(self) -> PathLike:
        return self._source.path

    def __getitem__(self, key: str) -> Value:
        return self._decode(self._entries[key])

    def __contains__(self, key: object) -> bool:
        return key in self._entries  # Mapping would decode the value to find out

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def value_type(self, key: str) -> ValueType:
        """The stored type of a key; see `element_type` for arrays. KeyError when absent."""
        return self._entries[key].type

    def element_type(self, key: str) -> ValueType | None:
        """The type of an array's elements, None for scalars."""
        return self._entries[key].element_type

    def count(self, key: str) -> int:
        """Elements of an array without decoding it; 1 for scalars."""
        return self._entries[key].count

    def require(self, key: str, type: type[T]) -> T:
        """The value of `key`, of Python type int, float, str, bool or list (an ndarray or list[str]).

        Raises MetadataError when it is missing or stored as another type.
        """
        entry = self._entries.get(key)
        if entry is None:
            hint = "The model was converted by a tool that leaves it out; convert it again"
            raise MetadataError("required key is missing", path=self.path, field=key, hint=hint)
        return self._typed(key, entry, type)

    def optional(self, key: str, type: type[T], default: D) -> T | D:
        """The value of `key`, or `default` when it is absent. A wrong type is a MetadataError all the same."""
        entry = self._entries.get(key)
        return default if entry is None else self._typed(key, entry, type)

    def expect(self, key: str, value: object) -> None:
        """Absent is fine; present and different raises UnsupportedError: we implement nothing else."""
        entry = self._entries.get(key)
        if entry is not None and not self._equals(entry, value):
            found = repr(self._decode(entry)) if entry.type is not ValueType.ARRAY else entry.type_name
            raise UnsupportedError(
                f"{self.path}: {label(key)!r} is {label(found)}, only {value!r} is supported by this version"
            )

    def scope(self, prefix: str) -> MetadataScope:
        """Access to the keys that begin with `prefix` and a dot, remembering which were read."""
        return MetadataScope(self, prefix)

    def _decode(self, entry: Entry) -> Value:
        return entry.value if entry.value is not None else decode(entry, self._source.view, self._byte_order)

    def _typed(self, key: str, entry: Entry, type: type[T]) -> T:
        if type not in _PYTHON_TYPES:
            raise TypeError(f"metadata types are int, float, str, bool and list, not {type!r}")
        if entry.type not in _PYTHON_TYPES[type]:
            raise MetadataError(
                "stored with the wrong type",
                path=self.path,
                offset=entry.offset,
                field=label(key),
                got=entry.type_name,
                allowed=type.__name__,
            )
        return self._decode(entry)  # type: ignore[return-value]

    def _equals(self, entry: Entry, value: object) -> bool:
        found = self._decode(entry)
        if isinstance(found, np.ndarray | list):
            return np.array_equal(np.asarray(found), np.asarray(value))
        if isinstance(value, float) and entry.type is ValueType.FLOAT32:
            return bool(np.float32(value) == np.float32(found))
        return type(found) is type(value) and found == value


class MetadataScope:
    """The keys of one prefix. `done()` is the promise that nothing about the model was overlooked."""

    def __init__(self, metadata: Metadata, prefix: str, read: set[str] | None = None) -> None:
        self._metadata, self.prefix = metadata, prefix
        self._read: set[str] = set() if read is None else read
        self._ignored: list[str] = []

    def __contains__(self, key: str) -> bool:
        return self._full(key) in self._metadata

    def require(self, key: str, type: type[T]) -> T:
        """See Metadata.require."""
        return self._metadata.require(self._mark(key), type)

    def optional(self, key: str, type: type[T], default: D) -> T | D:
        """See Metadata.optional."""
        return self._metadata.optional(self._mark(key), type, default)

    def expect(self, key: str, value: object) -> None:
        """See Metadata.expect."""
        self._metadata.expect(self._mark(key), value)

    def value_type(self, key: str) -> ValueType:
        """See Metadata.value_type. Looking at the type does not count as reading."""
        return self._metadata.value_type(self._full(key))

    def scope(self, prefix: str) -> MetadataScope:
        """A scope inside this one; what it reads counts here."""
        return MetadataScope(self._metadata, self._full(prefix), self._read)

    def ignore(self, *names: str) -> None:
        """Mark keys as known and harmless. A name ending in ".*" stands for everything below it."""
        self._ignored += names

    def unread(self) -> list[str]:
        """Full names of the keys that were neither read nor ignored."""
        below = tuple(self._full(name[:-1]) for name in self._ignored if name.endswith(".*"))
        known = self._read | {self._full(name) for name in self._ignored}
        keys = (key for key in self._metadata if key.startswith(self.prefix + "."))
        return [key for key in keys if key not in known and not (below and key.startswith(below))]

    def done(self) -> None:
        """Raise UnsupportedError if the file says something about the model that nobody read."""
        if unread := self.unread():
            names = ", ".join(label(key) for key in unread[:10])
            more = f" and {len(unread) - 10} more" if len(unread) > 10 else ""
            raise UnsupportedError(
                f"{self._metadata.path}: this version does not know {names}{more}. "
                "Running the model without them could give wrong answers; update Halfbyte"
            )

    def _full(self, key: str) -> str:
        return f"{self.prefix}.{key}"

    def _mark(self, key: str) -> str:
        full = self._full(key)
        self._read.add(full)
        return full
