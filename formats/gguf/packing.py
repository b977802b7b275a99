"""Tensors of bitsandbytes' kinds between memory and file: what is declared, which keys, which bytes (kinds.py)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .kinds import (
    CODEBOOKS,
    COLS_KEY,
    KINDS,
    KINDS_KEY,
    LAYOUT,
    NAMES_KEY,
    NESTED_KEY,
    ROWS_KEY,
    SOURCE_KEY,
    VERSION,
    VERSION_KEY,
    Kind,
    codebook_key,
    layout_key,
)
from .nested import Nested, dynamic_map, nest
from .types import GGMLType

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Stored:
    """A tensor as a file has it; `shape` in NumPy order."""

    name: str
    type: GGMLType
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return self.type.row_bytes(self.shape[-1]) * math.prod(self.shape[:-1])


def stored_form(name: str, shape: Sequence[int], type_: GGMLType) -> list[Stored]:
    """The tensors that hold a tensor of any type, in the order of a file; `shape` in NumPy order."""
    kind, shape = KINDS.get(type_), tuple(shape)
    if type_ is GGMLType.INT8:
        return [Stored(name, GGMLType.Q8_0, shape)]
    if kind is None:
        return [Stored(name, type_, shape)]
    form = [Stored(name, GGMLType.I8, (*shape[:-1], kind.stored_row_bytes(shape[-1])))]
    if kind.nested:
        form.append(Stored(kind.nested_name(name), GGMLType.F32, (kind.nested_size(math.prod(shape)),)))
    return form


def container_keys(tensors: Iterable[Stored], source: str) -> dict[str, object]:
    """The keys that describe those of the tensors (logical ones) that are stored as bytes; none if there are none."""
    packed = [(one, KINDS[one.type]) for one in tensors if one.type in KINDS]
    if not packed:
        return {}
    keys: dict[str, object] = {
        VERSION_KEY: VERSION,
        SOURCE_KEY: source,
        NAMES_KEY: [one.name for one, _ in packed],
        KINDS_KEY: [kind.text for _, kind in packed],
        ROWS_KEY: [math.prod(one.shape[:-1]) for one, _ in packed],
        COLS_KEY: [one.shape[-1] for one, _ in packed],
    }
    for codes in sorted({kind.codes for _, kind in packed}):
        keys[codebook_key(codes)] = np.array(CODEBOOKS[codes], np.float32)
        keys[layout_key(codes)] = LAYOUT
    if any(kind.nested for _, kind in packed):
        keys[NESTED_KEY] = dynamic_map()
    return keys


def pack_nested(rows: Bytes, kind: Kind, offset: np.float32 | None = None) -> tuple[Bytes, NDArray[np.float32]]:
    """All rows of a tensor as in memory, uint8[rows, row_bytes], to the bytes of a file and the companion's numbers."""
    blocks = np.ascontiguousarray(rows).reshape(-1).view(_in_memory(kind))
    nested = nest(blocks["d"], offset)
    stored = np.empty(len(blocks), _in_file(kind))
    stored["code"], stored["qs"] = nested.codes, blocks["qs"]
    return stored.view(np.uint8).reshape(len(rows), -1), np.append(nested.offset, nested.absmax).astype(np.float32)


def unpack_nested(
    stored: Bytes, kind: Kind, companion: NDArray[np.float32], levels: NDArray[np.float32]
) -> Bytes:
    """The inverse: uint8[rows, stored row bytes] -> uint8[rows, row_bytes], with the absmaxes as float32."""
    blocks = np.ascontiguousarray(stored).reshape(-1).view(_in_file(kind))
    rows = np.empty(len(blocks), _in_memory(kind))
    with np.errstate(all="ignore"):  # a file may hold infinities
        rows["d"] = Nested(blocks["code"], companion[1:], companion[0], levels).values()
    rows["qs"] = blocks["qs"]
    return rows.view(np.uint8).reshape(len(stored), -1)


def _in_memory(kind: Kind) -> np.dtype[np.void]:
    return np.dtype([("d", "<f4"), ("qs", "u1", kind.block // 2)])


def _in_file(kind: Kind) -> np.dtype[np.void]:
    return np.dtype([("code", "u1"), ("qs", "u1", kind.block // 2)])


