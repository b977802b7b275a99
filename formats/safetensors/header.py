"""The header of a safetensors file: where each tensor lies, checked against the file before anything is read.

Rules and verdicts are those of the reference implementation (the `safetensors` crate): sorted by offset, tensors follow
each other without holes or overlaps, from the end of the header to the end of the file. Stricter are two things that no
writer makes: a name that stands twice in an object, and a list in place of a tensor's object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ..gguf.source import Source
from ..stored import DTYPE_BITS
from ..strict_json import JsonError, loads
from .errors import (
    AlignmentError,
    DtypeError,
    HeaderEncodingError,
    HeaderJsonError,
    HeaderLengthError,
    HeaderStartError,
    HeaderTooLargeError,
    HeaderTooSmallError,
    IncompleteError,
    OffsetError,
    SafetensorsError,
    ShapeError,
    SizeError,
)

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
METADATA = "__metadata__"
_U64 = 1 << 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: bytes [start, stop) of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """`entries` in the order of the file, `metadata` as free text that the writer left."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, str]


def parse_header(source: Source) -> Header:
    """Read and check the header. Raises SafetensorsError subclasses that name file, tensor, value and bound."""
    length = _length(source)
    data_start = LENGTH_BYTES + length
    fields = _object(source, bytes(source.view[LENGTH_BYTES:data_start]))
    metadata = _metadata(source, fields.pop(METADATA, None))
    entries = [_entry(source, name, about, data_start) for name, about in fields.items()]
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    end = data_start
    for entry in entries:
        if entry.start != end or entry.stop < entry.start:
            _refuse(
                OffsetError, source, "the bytes of a tensor do not begin where the one before ends",
                f"{entry.name}.data_offsets", [entry.start - data_start, entry.stop - data_start],
                f"a start of {end - data_start}",
            )  # fmt: skip
        _check_size(source, entry)
        end = entry.stop
    if end != source.size:
        _refuse(
            IncompleteError, source, "the tensors do not end where the file ends", "data_offsets", end,
            f"{source.size}, the size of the file", "Download it again: it is truncated, or was tampered with",
        )  # fmt: skip
    return Header(tuple(entries), metadata)


def _length(source: Source) -> int:
    if source.size < LENGTH_BYTES:
        _refuse(HeaderTooSmallError, source, "too short for a safetensors file", "header length", source.size)
    length = int.from_bytes(source.view[:LENGTH_BYTES], "little")
    allowed = f"up to {MAX_HEADER_BYTES:,}"
    if length > MAX_HEADER_BYTES:
        _refuse(HeaderTooLargeError, source, "the header is too large", "header length", length, allowed)
    if length > source.size - LENGTH_BYTES:
        _refuse(
            HeaderLengthError, source, "the header runs past the end of the file", "header length", length,
            f"up to {source.size - LENGTH_BYTES:,}, the bytes that follow", "Download the file again: it is truncated",
        )  # fmt: skip
    return length


def _object(source: Source, raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HeaderEncodingError(
            "the header is not UTF-8", path=source.path, offset=LENGTH_BYTES + error.start, field="header"
        ) from None
    if not text.lstrip(" \t\r\n").startswith("{"):
        _refuse(HeaderStartError, source, "the header is no JSON object", "header", text[:20], "'{' at its start")
    try:
        fields = loads(text)
    except JsonError as error:
        offset = LENGTH_BYTES + len(text[: error.offset].encode()) if error.offset >= 0 else None
        raise HeaderJsonError(error.problem, path=source.path, offset=offset, field="header") from None
    assert isinstance(fields, dict)  # it begins with "{"
    return fields


def _metadata(source: Source, given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        _refuse(HeaderJsonError, source, "metadata is an object of texts", METADATA, given)
    return given


def _entry(source: Source, name: str, about: Any, data_start: int) -> Entry:
    if not isinstance(about, dict):
        _refuse(HeaderJsonError, source, "a tensor is described by an object", name, about)
    missing = [field for field in ("dtype", "shape", "data_offsets") if field not in about]
    if missing:
        _refuse(HeaderJsonError, source, "a tensor is not fully described", f"{name}.{missing[0]}", None)
    dtype, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        _refuse(DtypeError, source, "unknown type of numbers", f"{name}.dtype", dtype, ", ".join(DTYPE_BITS))
    if not _are_counts(shape):
        _refuse(HeaderJsonError, source, "not a shape", f"{name}.shape", shape, "whole numbers from 0 to 2**64 - 1")
    if not _are_counts(offsets) or len(offsets) != 2:
        _refuse(
            HeaderJsonError, source, "not a pair of offsets", f"{name}.data_offsets", offsets,
            "two whole numbers from 0 to 2**64 - 1",
        )  # fmt: skip
    return Entry(name, dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _are_counts(values: Any) -> bool:
    """A list of integers of 64 bits without sign. JSON's true and 1.0 are none."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < _U64 for value in values)


def _check_size(source: Source, entry: Entry) -> None:
    elements = 1
    for n in entry.shape:  # in this order: a zero behind an overflow does not mend it
        elements *= n
        if elements >= _U64:
            _refuse(ShapeError, source, "too many elements", f"{entry.name}.shape", list(entry.shape))
    bits = elements * DTYPE_BITS[entry.dtype]
    if bits >= _U64:
        _refuse(ShapeError, source, "too many bytes", f"{entry.name}.shape", list(entry.shape))
    if bits % 8:
        _refuse(
            AlignmentError, source, f"{entry.dtype} numbers do not fill whole bytes", f"{entry.name}.shape",
            list(entry.shape),
        )  # fmt: skip
    if entry.stop - entry.start != bits // 8:
        _refuse(
            SizeError, source, "a tensor's bytes are not as many as its shape needs", f"{entry.name}.data_offsets",
            entry.stop - entry.start, f"{bits // 8} for {entry.dtype} {list(entry.shape)}",
        )  # fmt: skip


def _refuse(
    error: type[SafetensorsError],
    source: Source,
    problem: str,
    field: str,
    got: object,
    allowed: str | None = None,
    hint: str | None = None,
) -> NoReturn:
    raise error(problem, path=source.path, field=field, got=got, allowed=allowed, hint=hint)
