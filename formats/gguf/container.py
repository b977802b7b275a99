"""Opening a container: tensors that keys describe appear with their shape and kind instead of as bytes (kinds.py).

Every key is checked before it is believed. Names of reversible Q8_0 tensors are different: another program may have
made other types of them and kept the key, so they are a hint, taken where it fits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedError
from .errors import ContainerError, GGUFError
from .header import label
from .kinds import (
    BY_TEXT,
    CODEBOOKS,
    COLS_KEY,
    KINDS,
    KINDS_KEY,
    LAYOUT,
    NAMES_KEY,
    NESTED_KEY,
    ROWS_KEY,
    VERSION,
    VERSION_KEY,
    Kind,
    codebook_key,
    layout_key,
    reversible_key,
)
from .metadata import Metadata
from .packing import unpack_nested
from .tensors import GGUFTensor, check_shape
from .types import GGMLType

Tensors = Mapping[str, GGUFTensor]


@dataclass(frozen=True, slots=True)
class PackedTensor(GGUFTensor):
    """A tensor of one of the kinds: `type`, `ne` and `data` are what it stands for, `n_bytes` what it takes in a file.

    With quantized absmaxes `companion` is where the rest of them is, and `data` is made when it is asked for.
    """

    companion: GGUFTensor | None
    levels: NDArray[np.float32] | None  # of codes of absmaxes

    @property
    def raw(self) -> NDArray[np.uint8]:
        """The bytes of the file, uint8[rows, stored row bytes]. They have no byte order: all files hold the same."""
        row = KINDS[self.type].stored_row_bytes(self.ne[0])
        raw = self._source.array[self.offset : self.offset + row * math.prod(self.ne[1:])]
        raw.flags.writeable = False
        return raw.reshape(-1, row)

    @property
    def nested(self) -> NDArray[np.float32]:
        """The offset of absmaxes, and the absmax of each 256 of them; none where absmaxes are not quantized."""
        if self.companion is None:
            return np.empty(0, np.float32)
        return np.ascontiguousarray(self.companion.data).reshape(-1).view("<f4")

    @property
    def data(self) -> NDArray[np.uint8]:
        """See GGUFTensor."""
        rows = self.raw
        if self.levels is not None:
            rows = unpack_nested(rows, KINDS[self.type], self.nested, self.levels)
            rows.flags.writeable = False
        return rows.reshape(*self.shape[:-1], self.row_bytes)

    def forget(self, start: int = 0, stop: int | None = None) -> None:
        """See GGUFTensor; parts of what is not read in place stay until all of it is forgotten."""
        if self.companion is None:
            GGUFTensor.forget(self, start, stop)
        elif stop is None:
            GGUFTensor.forget(self, 0, self.n_bytes - self.companion.n_bytes)
            self.companion.forget()


@dataclass(frozen=True, slots=True)
class ReversibleTensor(GGUFTensor):
    """A tensor of Q8_0 that was made of four-bit codes, as a key says: its bytes may prove it wrong."""

    codes: GGMLType

    @property
    def made_of(self) -> GGMLType:
        return self.codes


def logical_tensors(metadata: Metadata, tensors: Tensors, *, complete: bool) -> Tensors:
    """The tensors that those of a file stand for. Without `complete`, some of them may be in other files.

    Raises ContainerError, MetadataError, and UnsupportedError for a version or a kind that is not known.
    """
    if VERSION_KEY in metadata:
        tensors = _Container(metadata, tensors, complete).unpacked()
    hints = {
        name: GGMLType[codes.upper()]
        for codes in CODEBOOKS
        for name in metadata.optional(reversible_key(codes), list, [])
        if isinstance(name, str)
    }
    return {name: _with_hint(tensor, hints.get(name)) for name, tensor in tensors.items()} if hints else tensors


def _with_hint(tensor: GGUFTensor, made_of: GGMLType | None) -> GGUFTensor:
    if made_of is None or tensor.type is not GGMLType.Q8_0 or tensor.ne[0] % made_of.block_size:
        return tensor
    return ReversibleTensor(**_fields(tensor), codes=made_of)


def _fields(tensor: GGUFTensor) -> dict[str, Any]:
    return {field.name: getattr(tensor, field.name) for field in fields(GGUFTensor)}


class _Container:
    """The keys of a file, checked one after the other."""

    def __init__(self, metadata: Metadata, tensors: Tensors, complete: bool) -> None:
        self._metadata, self._tensors, self._complete = metadata, tensors, complete
        self._path = Path(metadata.path)

    def unpacked(self) -> Tensors:
        version = self._metadata.require(VERSION_KEY, int)
        if version != VERSION:
            raise UnsupportedError(f"{self._path}: {VERSION_KEY!r} is {version}, this version reads {VERSION}")
        names, kinds = self._strings(NAMES_KEY), [self._kind(text) for text in self._strings(KINDS_KEY)]
        rows, cols = self._numbers(ROWS_KEY), self._numbers(COLS_KEY)
        for key, values in ((KINDS_KEY, kinds), (ROWS_KEY, rows), (COLS_KEY, cols)):
            if len(values) != len(names):
                raise self._wrong(f"not as many as {NAMES_KEY}", key, len(values), str(len(names)))
        if len(set(names)) < len(names):
            twice, _ = Counter(names).most_common(1)[0]
            raise self._wrong("a tensor is listed twice", NAMES_KEY, twice)
        self._check_codes({kind.codes for kind in kinds})
        levels = self._levels() if any(kind.nested for kind in kinds) else None
        found, companions = dict(self._tensors), list[str]()
        for name, kind, n, columns in zip(names, kinds, rows, cols, strict=True):
            if name in found:
                packed = self._packed(self._tensors[name], kind, n, columns, levels)
                found[name] = packed
                companions += [] if packed.companion is None else [packed.companion.name]
            elif self._complete:
                raise self._wrong("there is no such tensor", NAMES_KEY, name)
        hidden = set(companions)
        if both := hidden & set(names):
            raise self._wrong("a tensor is said to belong to another one, too", NAMES_KEY, min(both))
        return {name: tensor for name, tensor in found.items() if name not in hidden}

    def _strings(self, key: str) -> list[str]:
        values: Any = self._metadata.require(key, list)
        if not isinstance(values, list):
            raise self._wrong("not a list of strings", key, self._metadata.element_type(key))
        return values

    def _numbers(self, key: str) -> list[int]:
        values: Any = self._metadata.require(key, list)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu":
            raise self._wrong("not a list of whole numbers", key, self._metadata.element_type(key))
        return [int(value) for value in values]

    def _kind(self, text: str) -> Kind:
        if text not in BY_TEXT:
            raise UnsupportedError(
                f"{self._path}: {KINDS_KEY!r} has the kind {label(text)!r}, which this version does not know; "
                "it may come from a newer one"
            )
        return BY_TEXT[text]

    def _check_codes(self, used: set[str]) -> None:
        """Codes must mean here what they mean in the file."""
        for codes in sorted(used):
            levels: Any = self._metadata.require(codebook_key(codes), list)
            expected = np.array(CODEBOOKS[codes], np.float32)
            if not isinstance(levels, np.ndarray) or not np.array_equal(levels, expected):
                raise UnsupportedError(f"{self._path}: {codebook_key(codes)!r} is not the codebook of {codes.upper()}")
            layout = self._metadata.require(layout_key(codes), str)
            if layout != LAYOUT:
                raise UnsupportedError(
                    f"{self._path}: {layout_key(codes)!r} is {label(layout)!r}, this version reads {LAYOUT!r}"
                )

    def _levels(self) -> NDArray[np.float32]:
        """Of the codes of absmaxes. Any will do: bitsandbytes computes them, and not everywhere to the last bit."""
        levels: Any = self._metadata.require(NESTED_KEY, list)
        if not isinstance(levels, np.ndarray) or levels.shape != (256,) or levels.dtype.kind != "f":
            raise self._wrong("not 256 numbers", NESTED_KEY, self._metadata.count(NESTED_KEY))
        if not np.isfinite(levels).all():
            raise self._wrong("holds NaN or infinity", NESTED_KEY, float(levels[~np.isfinite(levels)][0]))
        return levels.astype(np.float32)

    def _packed(
        self, tensor: GGUFTensor, kind: Kind, rows: int, cols: int, levels: NDArray[np.float32] | None
    ) -> PackedTensor:
        name = tensor.name
        if tensor.type is not GGMLType.I8:
            raise self._wrong("a tensor of a kind is stored as I8", name, tensor.type.name)
        if cols <= 0 or cols % kind.block or tensor.ne[0] != kind.stored_row_bytes(cols):
            allowed = f"{COLS_KEY} = {cols} in {kind.text}"
            raise self._wrong("rows have not the bytes that their columns need", f"{name}.ne[0]", tensor.ne[0], allowed)
        ne = (cols, *tensor.ne[1:])
        if math.prod(ne[1:]) != rows:
            raise self._wrong("not the number of rows", f"{name}.ne", tensor.ne, f"{ROWS_KEY} = {rows}")
        check_shape(ne, self._complain(name))
        companion = self._companion(kind, name, math.prod(ne)) if kind.nested else None
        about = _fields(tensor) | {"type": kind.type, "ne": ne}
        about["n_bytes"] += companion.n_bytes if companion is not None else 0
        return PackedTensor(**about, companion=companion, levels=levels if kind.nested else None)

    def _companion(self, kind: Kind, name: str, weights: int) -> GGUFTensor:
        other = self._tensors.get(kind.nested_name(name))
        if other is None:
            raise self._wrong(f"{kind.text} needs this tensor, too", kind.nested_name(name), None)
        if other.type is not GGMLType.F32 or other.ne != (kind.nested_size(weights),):
            allowed = f"F32 ({kind.nested_size(weights)},)"
            raise self._wrong("not the absmaxes of its tensor", other.name, f"{other.type.name} {other.ne}", allowed)
        return other

    def _complain(self, name: str) -> Any:
        def complain(error: type[GGUFError], problem: str, part: str, got: object, allowed: str | None) -> GGUFError:
            return error(problem, path=self._path, field=f"{name}.{part}", got=got, allowed=allowed)

        return complain

    def _wrong(self, problem: str, field: str, got: object, allowed: str | None = None) -> ContainerError:
        return ContainerError(problem, path=self._path, field=label(field), got=got, allowed=allowed)
