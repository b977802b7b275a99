"""Plan the files of a GGUF model before a byte is written: shards, headers, offsets and exact sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from struct import Struct

from .encode import encode_entry, encode_name
from .errors import WriteError
from .header import ALIGNMENT_KEY, MAGIC
from .limits import MAX_HEADER_BYTES, MAX_KEYS, MAX_SHARDS, MAX_TENSOR_NAME_BYTES, MAX_TENSORS
from .split import SPLIT_COUNT, SPLIT_NO, SPLIT_TENSORS, shard_path
from .tensors import pad
from .types import GGMLType, ValueType


@dataclass(frozen=True, slots=True)
class Declared:
    """A tensor to be written. `ne` is in file order."""

    name: str
    type: GGMLType
    ne: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What every file of the model has in common."""

    version: int
    byte_order: str
    alignment: int


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One file: its header, padded to where the data begins, and its tensors in order."""

    path: Path
    header: bytes
    tensors: tuple[Declared, ...]
    size: int


def plan_files(
    path: Path,
    layout: Layout,
    entries: Mapping[str, bytes],
    tensors: Sequence[Declared],
    max_bytes: int | None,
    max_tensors: int | None,
    counts: Sequence[int] | None = None,
) -> list[ShardPlan]:
    """Plans for one file named `path`, or for NAME-00001-of-0000N.gguf where the limits ask for several.

    `counts` says instead how many tensors each file has.
    """
    groups = _group(tensors, layout.alignment, max_bytes, max_tensors) if counts is None else _cut(tensors, counts)
    if len(groups) == 1:
        return [_plan(path, layout, entries, groups[0])]
    if len(groups) > MAX_SHARDS:
        raise WriteError(f"{path}: {len(groups):,} shards are too many; allow larger ones")
    stem = path.with_suffix("") if path.suffix == ".gguf" else path
    plans = []
    for i, group in enumerate(groups):
        shard = dict(entries) if i == 0 else {k: v for k, v in entries.items() if k == ALIGNMENT_KEY}
        for key, value, type_ in (
            (SPLIT_NO, i, ValueType.UINT16),
            (SPLIT_COUNT, len(groups), ValueType.UINT16),
            (SPLIT_TENSORS, len(tensors), ValueType.INT32),
        ):
            shard[key] = encode_entry(key, value, type_, layout.byte_order)
        plans.append(_plan(shard_path(stem, i + 1, len(groups)), layout, shard, group))
    return plans


def _group(
    tensors: Sequence[Declared], alignment: int, max_bytes: int | None, max_tensors: int | None
) -> list[Sequence[Declared]]:
    """Cut the list where the next tensor would pass a limit. A tensor above the limit gets a file of its own."""
    groups: list[list[Declared]] = [[]]
    used = 0
    for tensor in tensors:
        size = pad(tensor.n_bytes, alignment)
        too_big = max_bytes is not None and used + size > max_bytes
        too_many = max_tensors is not None and len(groups[-1]) >= max_tensors
        if groups[-1] and (too_big or too_many):
            groups.append([])
            used = 0
        groups[-1].append(tensor)
        used += size
    return list(groups)


def _cut(tensors: Sequence[Declared], counts: Sequence[int]) -> list[Sequence[Declared]]:
    if not counts or min(counts) < 0 or sum(counts) != len(tensors):
        raise WriteError(f"the files would have {sum(counts)} tensors, {len(tensors)} were declared")
    ends = list(accumulate(counts))
    return [tensors[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _plan(path: Path, layout: Layout, entries: Mapping[str, bytes], tensors: Sequence[Declared]) -> ShardPlan:
    if len(entries) > MAX_KEYS or len(tensors) > MAX_TENSORS:
        raise WriteError(f"{path}: a GGUF file holds up to {MAX_KEYS:,} keys and {MAX_TENSORS:,} tensors")
    order = layout.byte_order
    u32, u64 = Struct(order + "I"), Struct(order + "Q")
    parts = [MAGIC, u32.pack(layout.version), u64.pack(len(tensors)), u64.pack(len(entries)), *entries.values()]
    offset = 0
    for tensor in tensors:
        parts += [
            encode_name(tensor.name, MAX_TENSOR_NAME_BYTES, "tensor name", order),
            u32.pack(len(tensor.ne)),
            *(u64.pack(n) for n in tensor.ne),
            u32.pack(tensor.type),
            u64.pack(offset),
        ]
        offset += pad(tensor.n_bytes, layout.alignment)
    header = b"".join(parts)
    if len(header) > MAX_HEADER_BYTES:
        raise WriteError(f"{path}: the header has {len(header):,} bytes, up to {MAX_HEADER_BYTES:,} can be read back")
    header = header.ljust(pad(len(header), layout.alignment), b"\0")
    return ShardPlan(path, header, tuple(tensors), len(header) + offset)
