"""What a quantization did, or would do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...formats.gguf.kinds import KINDS
from .checks import columns_of
from .importance import Importance
from .plan import NATIVE, Choices, Planned
from .recipes import Kind
from .searches import REFERENCE


@dataclass(frozen=True)
class Summary:
    """What a quantization did, or would do: bytes of tensors before and after, and its plan.

    path                the file to open: of several the first; `files` are all of them, with their sizes
    without_importance  the matrices that an importance matrix says nothing of, where there is one
    without_effect      what was asked for and changed nothing, in sentences
    """

    path: Path
    files: tuple[tuple[Path, int], ...]
    bytes_before: int
    bytes_after: int
    tensors: tuple[Planned, ...]
    without_importance: tuple[str, ...] = ()
    without_effect: tuple[str, ...] = ()


def summarize(
    files: Mapping[Path, int], planned: Sequence[Planned], importance: Importance | None, without_effect: Iterable[str]
) -> Summary:
    before, after = sum(one.tensor.n_bytes for one in planned), sum(one.n_bytes for one in planned)
    matrices = [one for one in planned if not one.is_copied and one.kind not in (Kind.EMBEDDING, Kind.OUTPUT)]
    unknown = [one.tensor.name for one in matrices if importance and columns_of(one, importance) is None]
    return Summary(
        next(iter(files)), tuple(files.items()), before, after, tuple(planned), tuple(unknown), tuple(without_effect)
    )  # fmt: skip


def without_effect(planned: Sequence[Planned], choices: Choices, search: str) -> list[str]:
    """What was asked for and changed nothing: allowed, as one set of options may serve several models, but told."""
    names = [one.tensor.name for one in planned]
    idle = [pattern for pattern, _ in choices.overrides if not any(re.search(pattern, name) for name in names)]
    found = [f"{pattern!r} is found in no tensor's name" for pattern in idle]
    if choices.nf4_as != NATIVE and not any(one.type in KINDS for one in planned):
        found.append(f"no tensor becomes NF4 or FP4, so none is stored as {choices.nf4_as}")
    is_searched = any(one.search for one in planned)
    if search.lower() != REFERENCE and not is_searched:
        found.append(f"no tensor becomes of a type that the search {search!r} is for")
    return found
