"""Parse and validate the header of one GGUF file.

    magic "GGUF" | version u32 | n_tensors u64 | n_kv u64 | n_kv x (key, type, value)
    | n_tensors x (name, n_dims u32, ne u64[n_dims], type u32, offset u64) | padding | data

The rules of llama.cpp's reader are the floor; stricter here are: counts and header size have limits, keys follow the
specification (at most 65535 bytes, UTF-8), bools are 0 or 1, alignment is bounded, names hold no NUL, and all data must
lie inside the file.
"""

from __future__ import annotations

from dataclasses import dataclass

from .cursor import Cursor
from .errors import (
    AlignmentError,
    CountError,
    DuplicateKeyError,
    DuplicateTensorError,
    GGUFError,
    KeyNameError,
    NotGGUFError,
    TensorDataError,
    TensorNameError,
    TensorOffsetError,
    VersionError,
)
from .limits import (
    DEFAULT_ALIGNMENT,
    MAX_ALIGNMENT,
    MAX_KEY_BYTES,
    MAX_KEYS,
    MAX_TENSOR_NAME_BYTES,
    MAX_TENSORS,
    MIN_KEY_BYTES,
    MIN_TENSOR_BYTES,
)
from .sniff import describe_foreign
from .source import Source
from .tensors import Complain, GGUFTensor, check_dims, check_shape, check_size, check_type, pad
from .types import GGMLType, ValueType
from .values import Entry, parse_value

MAGIC = b"GGUF"
ALIGNMENT_KEY = "general.alignment"
_DAMAGED = "The file is damaged or incomplete; download or convert it again"


@dataclass(frozen=True, slots=True)
class Header:
    """What one file says about itself. `entries` and `tensors` are in file order."""

    version: int
    byte_order: str
    alignment: int
    entries: dict[str, Entry]
    tensors: dict[str, GGUFTensor]


@dataclass(frozen=True, slots=True)
class _Info:
    """A tensor info as stored: `offset` is relative to the data section, `at` is where that field lies."""

    name: str
    type: GGMLType
    ne: tuple[int, ...]
    n_bytes: int
    offset: int
    at: int


def parse_header(source: Source) -> Header:
    """Read everything before the data section. Raises a GGUFError for whatever is wrong."""
    c = Cursor(source.view, source.path)
    version = _parse_start(c)
    n_tensors, n_keys = _parse_counts(c)
    entries = _parse_entries(c, n_keys)
    alignment = _find_alignment(c, entries)
    infos = [_parse_info(c, i) for i in range(n_tensors)]
    data_start = pad(c.pos, alignment) if infos else c.pos
    tensors = _lay_out(infos, source, c.byte_order, alignment, data_start)
    return Header(version, c.byte_order, alignment, entries, tensors)


def label(name: str) -> str:
    """A key or tensor name, short enough for a message."""
    return name if len(name) <= 80 else name[:77] + "..."


def _parse_start(c: Cursor) -> int:
    head = bytes(c.view[:64])
    if head[:4] != MAGIC:
        problem, hint = describe_foreign(head, c.size)
        raise NotGGUFError(problem, path=c.path, offset=0, field="magic", got=head[:4], allowed="b'GGUF'", hint=hint)
    c.pos = 4
    version = c.u32("version")
    # A version is small, so its low half is zero only when the bytes are in the other order.
    if version and not version & 0xFFFF:
        c.set_byte_order(">")
        c.pos = 4
        version = c.u32("version")
    if version not in (2, 3):
        hint = {
            0: _DAMAGED,
            1: "Version 1 (August 2023) used 32-bit lengths; download a newer copy or convert the model again",
        }.get(version, "It may come from a newer converter; update Halfbyte")
        problem = "unsupported GGUF version"
        raise VersionError(problem, path=c.path, offset=4, field="version", got=version, allowed="2 or 3", hint=hint)
    return version


def _parse_counts(c: Cursor) -> tuple[int, int]:
    """n_tensors and n_kv, refused before any loop when the file is too small for them."""
    at = c.pos
    n_tensors, n_keys = c.u64("n_tensors"), c.u64("n_kv")
    _check_count(c, at, "n_tensors", n_tensors, MAX_TENSORS, c.remaining // MIN_TENSOR_BYTES)
    fitting = (c.remaining - n_tensors * MIN_TENSOR_BYTES) // MIN_KEY_BYTES
    _check_count(c, at + 8, "n_kv", n_keys, MAX_KEYS, fitting)
    return n_tensors, n_keys


def _check_count(c: Cursor, at: int, field: str, count: int, limit: int, fitting: int) -> None:
    if count > min(limit, fitting):
        allowed = f"up to {limit:,}" if limit <= fitting else f"up to {fitting:,} fit into the file"
        raise CountError("impossible count", path=c.path, offset=at, field=field, got=count, allowed=allowed)


def _parse_entries(c: Cursor, count: int) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for i in range(count):
        at = c.pos
        key = _parse_name(c, f"kv[{i}].key", KeyNameError, MAX_KEY_BYTES)
        if key in entries:
            raise DuplicateKeyError("duplicate key", path=c.path, offset=at, field=label(key))
        entries[key] = parse_value(c, label(key))
    return entries


def _parse_name(c: Cursor, field: str, error: type[GGUFError], max_bytes: int) -> str:
    at = c.pos
    raw = c.string(field)
    if not 0 < len(raw) <= max_bytes:
        problem = "name is too long" if raw else "name is empty"
        allowed = f"1 to {max_bytes} bytes"
        raise error(problem, path=c.path, offset=at, field=field, got=len(raw), allowed=allowed)
    if b"\0" in raw:
        raise error("name holds a NUL", path=c.path, offset=at, field=field, got=raw)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise error("name is not UTF-8", path=c.path, offset=at, field=field, got=raw) from None


def _find_alignment(c: Cursor, entries: dict[str, Entry]) -> int:
    entry = entries.get(ALIGNMENT_KEY)
    if entry is None:
        return DEFAULT_ALIGNMENT
    if entry.type is not ValueType.UINT32 or not isinstance(entry.value, int):
        problem, got, allowed = "wrong type", entry.type_name, "UINT32"
    elif not is_alignment(entry.value):
        problem, got, allowed = "impossible alignment", str(entry.value), f"a power of two up to {MAX_ALIGNMENT:,}"
    else:
        return entry.value
    raise AlignmentError(problem, path=c.path, offset=entry.offset, field=ALIGNMENT_KEY, got=got, allowed=allowed)


def is_alignment(n: int) -> bool:
    return 0 < n <= MAX_ALIGNMENT and n & (n - 1) == 0


def _parse_info(c: Cursor, index: int) -> _Info:
    name = _parse_name(c, f"tensor[{index}].name", TensorNameError, MAX_TENSOR_NAME_BYTES)
    n_dims = c.u32(f"{name}.n_dims")
    check_dims(n_dims, _complainer(c, name, c.pos - 4))  # before the loop that it bounds
    at = c.pos
    ne = tuple(c.u64(f"{name}.ne[{i}]") for i in range(n_dims))
    check_shape(ne, _complainer(c, name, at))
    type_at = c.pos
    type_ = check_type(c.u32(f"{name}.type"), _complainer(c, name, type_at))
    n_bytes = check_size(ne, type_, _complainer(c, name, at))
    offset_at = c.pos
    return _Info(name, type_, ne or (1,), n_bytes, c.u64(f"{name}.offset"), offset_at)


def _complainer(c: Cursor, name: str, at: int) -> Complain:
    def complain(error: type[GGUFError], problem: str, part: str, got: object, allowed: str | None) -> GGUFError:
        return error(problem, path=c.path, offset=at, field=f"{name}.{part}", got=got, allowed=allowed)

    return complain


def _out_of_file(problem: str, source: Source, at: int, field: str, end: int) -> TensorDataError:
    allowed = f"up to byte {source.size:,}"
    return TensorDataError(problem, path=source.path, offset=at, field=field, got=end, allowed=allowed, hint=_DAMAGED)


def _lay_out(
    infos: list[_Info], source: Source, byte_order: str, alignment: int, data_start: int
) -> dict[str, GGUFTensor]:
    """Check that the tensors lie back to back (each padded to `alignment`), without holes or overlaps, in the file."""
    if infos and data_start > source.size:
        raise _out_of_file("the file ends before the tensor data", source, data_start, "data", data_start)
    tensors: dict[str, GGUFTensor] = {}
    expected = 0
    infos.reverse()
    while infos:  # consumed, so that a header full of tensors never exists twice in memory
        info = infos.pop()
        if info.name in tensors:
            raise DuplicateTensorError("duplicate tensor name", path=source.path, offset=info.at, field=info.name)
        if info.offset != expected:
            raise TensorOffsetError(
                "tensors must follow each other without holes or overlap",
                path=source.path,
                offset=info.at,
                field=f"{info.name}.offset",
                got=info.offset,
                allowed=f"{expected}",
            )
        start = data_start + expected
        if start + info.n_bytes > source.size:
            end = start + info.n_bytes
            raise _out_of_file("the file ends before this tensor's data", source, start, f"{info.name}.data", end)
        expected += pad(info.n_bytes, alignment)
        tensors[info.name] = GGUFTensor(info.name, info.type, info.ne, start, info.n_bytes, byte_order, source)
    return tensors
