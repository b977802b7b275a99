"""Split files: NAME-00001-of-00003.gguf and its siblings, and the keys that tie them together."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .cursor import PathLike
from .durable import PARTIAL
from .errors import SplitError
from .limits import MAX_SHARDS
from .metadata import Metadata

SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS = "split.no", "split.count", "split.tensors.count"
SPLIT_KEYS = frozenset({SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS})
_SHARD_NAME = re.compile(r"(?s:(.*))-([0-9]{5})-of-([0-9]{5})\.gguf")


def shard_path(stem: Path, number: int, count: int) -> Path:
    """The path of shard `number` (from 1) of `count`; `stem` has no ".gguf"."""
    return stem.with_name(f"{stem.name}-{number:05d}-of-{count:05d}.gguf")


def shard_count(metadata: Metadata) -> int:
    """How many files the model has; 1 for a file that is whole."""
    count = metadata.optional(SPLIT_COUNT, int, 1)
    if not 0 <= count <= MAX_SHARDS:
        raise SplitError(
            "impossible number of shards", path=metadata.path, field=SPLIT_COUNT, got=count, allowed="1 to 65535"
        )
    return max(count, 1)  # llama.cpp writes 0 into files that were never split


def find_shards(path: PathLike, count: int, *, first_only: bool = False) -> list[Path]:
    """The shards of the set that `path` belongs to, in order: all of them, or the first alone.

    Only names derived from `path` itself are used. Of files that are still being written, the others are too.
    """
    folder, name = os.path.split(os.fspath(path))
    match = _SHARD_NAME.fullmatch(name.removesuffix(PARTIAL))
    if match is None or int(match[3]) != count:
        raise SplitError(
            f"this is one of {count} shards, but its name does not say so",
            path=path,
            field=SPLIT_COUNT,
            allowed=f"a name like NAME-00001-of-{count:05d}.gguf",
            hint="Give the shards the names they were published with",
        )
    shards = [shard_path(Path(folder, match[1]), i + 1, count) for i in range(1 if first_only else count)]
    if name.endswith(PARTIAL):
        shards = [shard.with_name(shard.name + PARTIAL) for shard in shards]
    missing = [shard.name for shard in shards if not shard.exists()]
    if missing:
        names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise SplitError(
            f"{len(missing)} of {count} shards are missing",
            path=path,
            field=SPLIT_COUNT,
            got=names,
            hint="Put all shards into one folder",
        )
    return shards


def check_shard(metadata: Metadata, index: int, count: int) -> None:
    """A shard must know its place: its number from 0, and the same number of shards as the others."""
    for key, expected in ((SPLIT_NO, index), (SPLIT_COUNT, count)):
        found = metadata.require(key, int)
        if found != expected:
            raise SplitError(
                "shard contradicts its name or its siblings", path=metadata.path, field=key, got=found,
                allowed=str(expected), hint="The files are from different sets or were renamed; download them again",
            )  # fmt: skip


def check_total(metadata: Metadata, n_tensors: int) -> None:
    """The first shard tells how many tensors the whole set holds."""
    found = metadata.require(SPLIT_TENSORS, int)
    if found != n_tensors:
        raise SplitError(
            "the shards together hold another number of tensors", path=metadata.path, field=SPLIT_TENSORS, got=found,
            allowed=str(n_tensors), hint="The files are from different sets; download them again",
        )  # fmt: skip
