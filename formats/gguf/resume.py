"""How far an earlier run got: the tensors that its journal claims and whose bytes are still what was written."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .checksum import Checksum
from .cursor import PathLike
from .durable import DurableFile, partial_of, real_target
from .journal import claim, journal_of
from .plan import Declared, ShardPlan
from .tensors import pad

Report = Callable[[int, int], None]  # bytes that were looked at, of how many


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor goes: the number of its file, and its bytes there, with the zeros up to the next one."""

    shard: int
    tensor: Declared
    offset: int
    end: int


def places(plans: Sequence[ShardPlan], alignment: int) -> Iterator[Place]:
    """Every tensor in the order in which they are written."""
    for shard, plan in enumerate(plans):
        offset = len(plan.header)
        for tensor in plan.tensors:
            end = offset + pad(tensor.n_bytes, alignment)
            yield Place(shard, tensor, offset, end)
            offset = end


def left_behind(path: PathLike) -> Path | None:
    """The (first) partial file of a model whose writing to `path` was stopped, if it can be gone on with."""
    target = real_target(path)
    stem = glob.escape(target.name.removesuffix(".gguf"))
    for partial in (partial_of(target), *target.parent.glob(f"{stem}-00001-of-[0-9]*.gguf.partial")):
        if partial.exists() and journal_of(partial).exists():
            return partial
    return None


def count_whole(
    plans: Sequence[ShardPlan],
    files: Sequence[DurableFile],
    order: Sequence[Place],
    claims: Sequence[bytes],
    report: Report | None = None,
) -> int:
    """How many tensors, from the first on, have the checksums that the journal claims. All of them are read."""
    total = sum(place.end - place.offset for place, _ in zip(order, claims, strict=False))
    seen, shard = 0, -1
    for i, (place, line) in enumerate(zip(order, claims, strict=False)):
        if place.shard != shard:
            shard, header = place.shard, plans[place.shard].header
            if b"".join(files[shard].read(0, len(header))) != header:
                return i
        if claim(place.offset, place.end, checksum_of(files[shard], place)) != line:
            return i
        seen += place.end - place.offset
        if report:
            report(seen, total)
    return min(len(order), len(claims))


def checksum_of(file: DurableFile, place: Place) -> str:
    """Of a place as the file has it."""
    found = Checksum()
    for chunk in file.read(place.offset, place.end - place.offset):
        found.update(chunk)
    return found.hexdigest()
